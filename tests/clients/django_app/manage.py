"""Django's own commands, for an application as docs/attach.md has it in mind."""

import sys

import site_settings  # noqa: F401 - configures Django
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
