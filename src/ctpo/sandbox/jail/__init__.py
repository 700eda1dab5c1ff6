"""What confines a program: namespaces, landlock, seccomp, limits."""
