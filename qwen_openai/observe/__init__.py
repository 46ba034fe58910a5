"""What is noted of requests, and where it shows. Receives facts, changes nothing."""
