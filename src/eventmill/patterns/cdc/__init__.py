"""Change data capture: the changes of a database that nobody wants to touch, as events."""
