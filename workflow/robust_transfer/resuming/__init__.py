"""What an interrupted job leaves behind, and how it goes on."""
