"""The other side of the connection: processes forked and confined before there is work."""
