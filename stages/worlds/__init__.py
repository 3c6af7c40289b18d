"""What can be stepped: always a batch of lanes, behind the World protocol."""
