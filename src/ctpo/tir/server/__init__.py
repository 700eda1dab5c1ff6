"""Models behind a server: its client, what servers send, and episodes in text."""
