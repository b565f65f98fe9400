"""What runs the steps: processes of this machine, or jobs of a batch system."""
