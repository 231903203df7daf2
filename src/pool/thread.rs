//! What the operating system says of a worker's thread.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// A thread, for others to look at.
pub(super) struct Thread {
    /// Where its state can be read; only Linux has such a place.
    stat: Option<PathBuf>,
}

impl Thread {
    pub(super) fn current() -> Self {
        let link = if cfg!(tower_wsgi_loom) { None } else { std::fs::read_link("/proc/thread-self").ok() };
        Self {
            stat: link.map(|link| PathBuf::from_iter(["/proc".as_ref(), link.as_path(), "stat".as_ref()])),
        }
    }

    /// Whether it runs, or would if it had a core. True where nobody can tell.
    pub(super) fn is_running(&self) -> bool {
        let Some(stat) = &self.stat else { return true };
        let mut start = [0; 64];
        let Ok(length) = File::open(stat).and_then(|mut file| file.read(&mut start)) else { return true };
        state(&start[..length]).is_none_or(|state| state == b'R')
    }
}

/// The letter behind the thread's name, which stands in parentheses and may have some in it.
fn state(stat: &[u8]) -> Option<u8> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).copied()
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(tower_wsgi_loom)))]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_state_stands_behind_any_name() {
        assert_eq!(state(b"12 (tower-wsgi-work) R 1 1"), Some(b'R'));
        assert_eq!(state(b"12 (a) R (b) S 1 1"), Some(b'S'));
        assert_eq!(state(b"12 (a)"), None);
        assert_eq!(state(b""), None);
    }

    #[test]
    fn a_thread_that_waits_does_not_run() {
        assert!(Thread::current().is_running());
        let ((tell, told), (go, wait)) = (mpsc::channel(), mpsc::channel::<()>());
        let waiting = thread::spawn(move || {
            tell.send(Arc::new(Thread::current())).expect("somebody listens");
            let _ = wait.recv();
        });
        let thread = told.recv().expect("a thread");
        let deadline = Instant::now() + Duration::from_secs(20);
        while thread.is_running() {
            assert!(Instant::now() < deadline, "it never waits");
            thread::yield_now();
        }
        drop(go);
        waiting.join().expect("no panic");
    }
}
