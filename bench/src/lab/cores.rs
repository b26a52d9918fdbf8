//! Which core does what. veth hands what a core sends to the queue of that core's number, modulo the queues: so the generator
//! of each queue needs a core that fits, and a queue's worker is better off on another one.

use core_affinity::CoreId;

/// The cores of a run.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    /// By queue.
    pub(crate) generators: Vec<CoreId>,
    /// By queue.
    pub(crate) workers: Vec<CoreId>,
    /// Whether a worker has a generator on its core.
    pub(crate) shared: bool,
}

impl Cores {
    /// Chooses among the cores that this process may use.
    ///
    /// # Errors
    /// When there are too few for so many queues.
    pub(crate) fn choose(queues: u32) -> Result<Self, String> {
        Self::among(&core_affinity::get_core_ids().unwrap_or_default(), queues as usize)
    }

    fn among(cores: &[CoreId], queues: usize) -> Result<Self, String> {
        let mut generators: Vec<CoreId> = Vec::new();
        for queue in 0..queues {
            let fitting = cores.iter().find(|core| core.id % queues == queue).ok_or_else(|| {
                let ids: Vec<usize> = cores.iter().map(|core| core.id).collect();
                format!(
                    "{queues} queues need a core of number {queue} modulo {queues} for queue {queue}'s generator, and this \
                     process may use {ids:?}; give --workers fewer"
                )
            })?;
            generators.push(*fitting);
        }
        let apart = cores.iter().filter(|core| !generators.contains(core)).copied();
        // Those that generators have come last, each for the queue of another generator if there is one.
        let rotated = generators.iter().cycle().skip(1).take(queues).copied();
        let workers: Vec<CoreId> = apart.chain(rotated).take(queues).collect();
        let shared = workers.iter().any(|core| generators.contains(core));
        Ok(Self { generators, workers, shared })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chosen(cores: &[usize], queues: usize) -> Option<(Vec<usize>, Vec<usize>, bool)> {
        let cores: Vec<CoreId> = cores.iter().map(|&id| CoreId { id }).collect();
        let ids = |cores: &[CoreId]| cores.iter().map(|core| core.id).collect();
        let chosen = Cores::among(&cores, queues).ok()?;
        Some((ids(&chosen.generators), ids(&chosen.workers), chosen.shared))
    }

    #[test]
    fn workers_have_cores_of_their_own_while_there_are_enough() {
        assert_eq!(chosen(&[0, 1], 1), Some((vec![0], vec![1], false)));
        assert_eq!(chosen(&[0, 1], 2), Some((vec![0, 1], vec![1, 0], true)));
        assert_eq!(chosen(&[0, 1, 2, 3], 2), Some((vec![0, 1], vec![2, 3], false)));
        assert_eq!(chosen(&[0, 1, 2], 2), Some((vec![0, 1], vec![2, 1], true)));
        assert_eq!(chosen(&[5], 1), Some((vec![5], vec![5], true)));
        assert_eq!(chosen(&[0, 2], 2), None);
        assert_eq!(chosen(&[], 1), None);
    }
}
