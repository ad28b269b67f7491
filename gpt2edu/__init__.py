"""Learn how GPT-2 works, and train one."""

__version__ = "0.1.0"
