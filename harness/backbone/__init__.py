"""The one loader of frozen backbones, what it needs before it can load, and the device it loads onto."""
