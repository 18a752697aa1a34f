"""What an organism is asked, how its answers are sampled, and how they are judged."""
