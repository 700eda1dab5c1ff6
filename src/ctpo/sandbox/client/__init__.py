"""The caller's side: requests become jobs, and jobs go to fork servers."""
