//! The maximum of a figure over the last rounds.

/// A windowed maximum. A round is one round trip.
#[derive(Clone, Debug, Default)]
pub(super) struct MaxOfRounds {
    rounds: [u64; Self::ROUNDS],
    /// The index of the current round.
    current: usize,
}

impl MaxOfRounds {
    /// How many rounds count.
    const ROUNDS: usize = 10;

    /// Takes a sample of the current round.
    pub(super) fn add(&mut self, sample: u64) {
        let round = &mut self.rounds[self.current];
        *round = sample.max(*round);
    }

    /// Begins a round, and forgets the oldest.
    pub(super) fn next_round(&mut self) {
        self.current = (self.current + 1) % Self::ROUNDS;
        self.rounds[self.current] = 0;
    }

    /// The maximum; 0 without a sample.
    pub(super) fn get(&self) -> u64 {
        self.rounds.iter().copied().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_round_is_forgotten() {
        let mut max = MaxOfRounds::default();
        assert_eq!(max.get(), 0);
        max.add(3);
        max.add(5);
        max.add(4);
        for _ in 1..MaxOfRounds::ROUNDS {
            max.next_round();
            max.add(1);
            assert_eq!(max.get(), 5);
        }
        max.next_round();
        assert_eq!(max.get(), 1);
    }
}
