//! What one of several workers may have of what all of them may have together.
//!
//! Invariant: the parts of all workers that there may be are no more than the whole, whichever of them serve. So a part is fixed: it
//! needs no book that workers share, in which one that was taken over could write what it likes. Of what is counted in executions each
//! has one at least, also where the whole is less than there are workers; whoever wants none at all says 0.

use nexus_protocol::limits::MIN_MAX_SUSPENDED_BYTES;

use crate::config::Config;

/// How many workers there may be at most: each has an instance at least, and room for what is suspended.
pub fn most_workers(config: &Config) -> usize {
    let with_room = config.max_suspended_bytes / MIN_MAX_SUSPENDED_BYTES;
    config.max_workers.min(config.max_instances).min(with_room).max(1) as usize
}

/// The part of each of so many workers. What one connection may have is no more than its worker may, so that it is told the truth
/// when it says hello.
pub fn portion_of(config: &Config, workers: usize) -> Config {
    if workers <= 1 {
        return config.clone();
    }
    let part = |whole: u64| whole / workers as u64;
    let one_at_least = |whole: u64| part(whole).max(whole.min(1));
    let max_instances = part(config.max_instances).max(1);
    let max_total_state_bytes = part(config.max_total_state_bytes);
    let max_total_arena_bytes = part(config.max_total_arena_bytes);
    Config {
        max_instances,
        min_instances: config.min_instances.min(max_instances),
        max_queued: one_at_least(config.max_queued),
        max_suspended: one_at_least(config.max_suspended),
        max_suspended_bytes: part(config.max_suspended_bytes),
        max_state_bytes: config.max_state_bytes.min(max_total_state_bytes),
        max_total_state_bytes,
        max_arena_bytes: config.max_arena_bytes.min(max_total_arena_bytes),
        max_total_arena_bytes,
        max_cache_size_bytes: part(config.max_cache_size_bytes),
        ..config.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_worker_has_none_of_what_there_is_some_of() {
        for (whole, each) in [(0, 0), (1, 1), (3, 1), (4, 1), (9, 2)] {
            let config = Config { max_queued: whole, max_suspended: whole, ..Config::default() };
            let part = portion_of(&config, 4);
            assert_eq!((part.max_queued, part.max_suspended), (each, each), "of {whole}");
        }
    }

    #[test]
    fn all_parts_together_are_no_more_than_the_whole() {
        for max_workers in [1, 2, 3, 7, 16, 256] {
            for (max_instances, max_suspended_bytes) in [(1, 1 << 40), (2, 128 << 10), (10, 1 << 20), (2000, 1 << 28)] {
                let config = Config { max_workers, max_instances, max_suspended_bytes, ..Config::default() };
                let workers = most_workers(&config);
                let part = portion_of(&config, workers);
                let sums: [fn(&Config) -> u64; 7] = [
                    |c| c.max_instances,
                    |c| c.max_queued,
                    |c| c.max_suspended,
                    |c| c.max_suspended_bytes,
                    |c| c.max_total_state_bytes,
                    |c| c.max_total_arena_bytes,
                    |c| c.max_cache_size_bytes,
                ];
                for (n, sum) in sums.iter().enumerate() {
                    assert!(sum(&part) * workers as u64 <= sum(&config), "{n} of {max_workers}, {max_instances}");
                }
                assert!(part.max_suspended_bytes >= MIN_MAX_SUSPENDED_BYTES);
                assert!(part.max_instances >= 1 && part.min_instances <= part.max_instances);
                assert!(workers == 1 || part.max_state_bytes <= part.max_total_state_bytes);
                assert!(workers == 1 || part.max_arena_bytes <= part.max_total_arena_bytes);
            }
        }
        let config = Config { max_total_state_bytes: 0, min_instances: 20, ..Config::default() };
        assert_eq!(portion_of(&config, 1), config, "one worker has all, as it is");
    }
}
