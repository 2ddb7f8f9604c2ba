"""What is said: the records of every topic, their keys, who writes and who reads them."""
