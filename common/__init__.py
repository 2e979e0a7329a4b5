"""What the three stages share. A stage never imports another stage."""
