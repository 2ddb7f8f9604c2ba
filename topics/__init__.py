"""The records of every topic with their keys, writers and readers, and other wire formats that programs share."""
