"""Good requests, spoilt at random: each is refused by the checks in a sentence, or the job does it."""
