"""What of a run is as it should be: measures with a verdict each, the report's traffic lights."""
