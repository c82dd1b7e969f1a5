"""How servers behave, by subject: whoever comes, goes, dies, or asks for too much."""
