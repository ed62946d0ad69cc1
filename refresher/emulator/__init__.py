"""TikTok as far as this project needs it, over real HTTP: for the demo, tests and benchmarks."""
