"""Keeps every stored TikTok cover alive. Start reading at cli.py; the flow is refresh.py."""
