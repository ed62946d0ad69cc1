"""Keeps every stored TikTok cover alive. Start reading at cli/; the flow is flow/refresh.py."""
