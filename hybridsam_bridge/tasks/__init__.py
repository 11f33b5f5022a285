"""Ready-made problems: what ``hybridsam-bridge train`` can run by name, and how a user's module supplies one."""
