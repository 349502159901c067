//! A log writer that never makes a worker wait: lines gather in memory, and a thread of its own writes them. A full
//! pipe behind the log would otherwise stop the edge, and a wake-up a line would cost more than the line.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::metrics::{Metrics, SHARDS, shard_of_this_thread};

/// How long a line may wait in memory.
const INTERVAL: Duration = Duration::from_millis(50);

/// Bytes that may gather for one worker: 200,000 lines a second. What comes beyond it is lost, and counted.
const MAX_GATHERED_BYTES: usize = 4 * 1024 * 1024;

/// Where lines gather. Clones share it; when the last is dropped, what has gathered is written and the thread ends.
#[derive(Clone, Debug)]
pub struct NonBlocking {
    gathered: Arc<Gathered>,
    metrics: Metrics,
}

/// One buffer a worker, each behind a lock that only the writing thread contends for, and only to swap it.
#[derive(Debug)]
struct Gathered([Mutex<Vec<u8>>; SHARDS]);

impl NonBlocking {
    /// Gathers lines; nothing is written before [`NonBlocking::write_to`].
    pub fn new(metrics: Metrics) -> NonBlocking {
        NonBlocking { gathered: Arc::new(Gathered(std::array::from_fn(|_| Mutex::default()))), metrics }
    }

    /// Starts the thread that writes to `sink`. A sink that fails (a full disk, a closed pipe) costs its lines only.
    pub fn write_to(&self, sink: impl Write + Send + 'static) -> io::Result<()> {
        let source = self.gathered.clone();
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_while_shared(&source, sink))?;
        Ok(())
    }

    /// Writes what has gathered and not been written yet: the last lines before the process ends.
    pub fn flush(&self, sink: &mut impl Write) {
        self.gathered.write_to(sink, &mut Vec::new());
    }

    /// Takes whole lines.
    pub fn append(&self, lines: &[u8]) {
        let mut gathered = lock(&self.gathered.0[shard_of_this_thread()]);
        if gathered.len() + lines.len() > MAX_GATHERED_BYTES {
            self.metrics.access_line_dropped();
        } else {
            gathered.extend_from_slice(lines);
        }
    }
}

fn write_while_shared(gathered: &Arc<Gathered>, mut sink: impl Write) {
    let mut buffer = Vec::new();
    loop {
        // Asked before writing: what the last handle appended is written, too.
        let is_last_round = Arc::strong_count(gathered) == 1;
        gathered.write_to(&mut sink, &mut buffer);
        if is_last_round {
            return;
        }
        std::thread::sleep(INTERVAL);
    }
}

impl Gathered {
    fn write_to(&self, sink: &mut impl Write, buffer: &mut Vec<u8>) {
        for shard in &self.0 {
            // Swapped, so that a slow sink holds no worker's lock.
            std::mem::swap(&mut *lock(shard), buffer);
            if !buffer.is_empty() {
                let _ = sink.write_all(buffer).and_then(|()| sink.flush());
                buffer.clear();
            }
        }
    }
}

fn lock(shard: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use super::*;

    /// A sink whose writes wait until it is opened.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

    impl Gate {
        fn open(&self) {
            self.0.0.lock().unwrap().0 = true;
            self.0.1.notify_all();
        }

        /// Waits for as many bytes.
        fn wait_for(&self, bytes: usize) -> bool {
            let state = self.0.0.lock().unwrap();
            let timeout = Duration::from_secs(10);
            !self.0.1.wait_timeout_while(state, timeout, |(_, written)| *written < bytes).unwrap().1.timed_out()
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (state, changed) = &*self.0;
            let mut state = changed.wait_while(state.lock().unwrap(), |(open, _)| !*open).unwrap();
            state.1 += bytes.len();
            changed.notify_all();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_stands_still_stops_nobody_and_lost_lines_are_counted() {
        let metrics = Metrics::default();
        let gate = Gate::default();
        let writer = NonBlocking::new(metrics.clone());
        writer.write_to(gate.clone()).unwrap();
        // What gathers, once more in the sink's hands, and some.
        let line = [b'x'; 1_024];
        for _ in 0..3 * MAX_GATHERED_BYTES / line.len() {
            writer.append(&line);
        }
        let dropped = "lb_access_log_dropped_total ";
        let dropped = metrics.render().lines().find_map(|line| line.strip_prefix(dropped)?.parse::<u64>().ok());
        assert!(dropped.unwrap_or(0) > 0);
        gate.open();
    }

    #[test]
    fn lines_before_the_last_handle_went_are_written() {
        let gate = Gate::default();
        gate.open();
        let writer = NonBlocking::new(Metrics::default());
        writer.write_to(gate.clone()).unwrap();
        writer.append(b"last words");
        drop(writer);
        assert!(gate.wait_for(10));
    }
}
