"""What a reproduction survives: kills, a full disk, a read-only folder, two writers, flipped bytes."""
