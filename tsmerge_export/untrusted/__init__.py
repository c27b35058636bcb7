"""Files from elsewhere: counted on their bytes, opened in a process of their own."""
