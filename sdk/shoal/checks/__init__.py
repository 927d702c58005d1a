"""What has to hold of a specification before it is submitted and recorded."""
