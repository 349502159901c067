//! A log writer that never makes a worker wait: lines gather in memory, and a thread of its own writes them. A full
//! pipe behind the log would otherwise stop the edge, and a wake-up a line would cost more than the line.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::sink::{Lost, Sink};
use crate::metrics::{Metrics, PerWorker};

/// How long a line may wait in memory.
const INTERVAL: Duration = Duration::from_millis(50);

/// So much is written at once, without waiting for more: memory that was used a moment ago is still near, and half of what a
/// line cost went into memory that was not.
const SOON_BYTES: usize = 64 * 1024;

/// Bytes that may gather for one worker: 200,000 lines a second. What comes beyond it is lost, and counted.
const MAX_GATHERED_BYTES: usize = 4 * 1024 * 1024;

/// How long the end of the process waits for the last lines.
const PATIENCE: Duration = Duration::from_secs(2);

/// A failure is told of once; it is over when nothing failed for as long.
const WELL_AFTER: Duration = Duration::from_secs(5);

/// Where lines gather. Clones share it; when the last is dropped, what has gathered is written and the thread ends.
#[derive(Clone, Debug)]
pub struct NonBlocking {
    gathered: Arc<Gathered>,
    orders: Sender<Order>,
    /// Of the thread that is not started yet.
    waiting: Arc<Mutex<Option<Receiver<Order>>>>,
    metrics: Metrics,
}

/// What the writing thread is told.
enum Order {
    /// Much has gathered.
    Write,
    /// Lines go there from now on.
    Use(Sink),
    Reopen,
    /// Answers when all that gathered before is written.
    Flush(SyncSender<()>),
}

/// The writing thread takes a worker's lock only to swap its buffer.
#[derive(Debug, Default)]
struct Gathered(PerWorker<Vec<u8>>);

impl NonBlocking {
    /// Gathers lines; nothing is written before [`NonBlocking::write_to`].
    pub fn new(metrics: Metrics) -> NonBlocking {
        let (orders, waiting) = mpsc::channel();
        NonBlocking { gathered: Arc::default(), orders, waiting: Arc::new(Mutex::new(Some(waiting))), metrics }
    }

    /// Starts the thread that writes to `sink`, until it is told of another. A sink that fails (a full disk, a closed pipe)
    /// costs its lines only. Only the first call has an effect.
    pub fn write_to(&self, sink: impl Write + Send + 'static) -> io::Result<()> {
        let orders = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(orders) = orders else { return Ok(()) };
        let writing = Writing {
            source: self.gathered.clone(),
            sink: Sink::stream(sink),
            buffer: Vec::new(),
            metrics: self.metrics.clone(),
            failed: None,
        };
        std::thread::Builder::new().name("access-log".into()).spawn(move || writing.obey(&orders))?;
        Ok(())
    }

    /// Lines go to `sink` from now on.
    pub(super) fn turn_to(&self, sink: Sink) {
        // Fails only when the thread panicked, which has told of that.
        let _ = self.orders.send(Order::Use(sink));
    }

    /// The file that lines go to has been put aside: it is begun anew.
    pub(super) fn reopen(&self) {
        let _ = self.orders.send(Order::Reopen);
    }

    /// Waits until what has gathered is written, for a moment at most: the last lines before the process ends.
    pub(super) fn flush(&self) {
        let (done, is_done) = mpsc::sync_channel(1);
        if self.orders.send(Order::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }

    /// Takes whole lines.
    pub fn append(&self, lines: &[u8]) {
        let mut gathered = self.gathered.0.mine();
        let (before, after) = (gathered.len(), gathered.len() + lines.len());
        if after > MAX_GATHERED_BYTES {
            self.metrics.access_lines_dropped(1);
            return;
        }
        gathered.extend_from_slice(lines);
        drop(gathered);
        if before < SOON_BYTES && after >= SOON_BYTES {
            let _ = self.orders.send(Order::Write);
        }
    }
}

/// The writing thread's own.
struct Writing {
    source: Arc<Gathered>,
    sink: Sink,
    buffer: Vec<u8>,
    metrics: Metrics,
    /// When a write failed last, unless that is over.
    failed: Option<Instant>,
}

impl Writing {
    fn obey(mut self, orders: &Receiver<Order>) {
        loop {
            let order = orders.recv_timeout(INTERVAL);
            // What gathered before an order is written before it is obeyed; and after the last handle went, the rest.
            self.write_gathered();
            match order {
                Ok(Order::Use(sink)) => {
                    self.sink = sink;
                    self.failed = None;
                }
                Ok(Order::Reopen) => {
                    if let Err(error) = self.sink.reopen() {
                        tracing::error!("{error:#}; lines go on to where they went");
                    }
                }
                Ok(Order::Flush(done)) => {
                    let _ = done.send(());
                }
                Ok(Order::Write) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write_gathered(&mut self) {
        let source = self.source.clone();
        for mut gathered in source.0.all() {
            if gathered.is_empty() {
                continue;
            }
            // Swapped, so that a slow sink holds no worker's lock; a worker that goes on gets back what has room already.
            std::mem::swap(&mut *gathered, &mut self.buffer);
            drop(gathered);
            let written = self.sink.write(&self.buffer);
            self.buffer.clear();
            self.note(written);
        }
    }

    fn note(&mut self, written: Result<(), Lost>) {
        match written {
            Ok(()) if self.failed.is_some_and(|failed| failed.elapsed() >= WELL_AFTER) => {
                tracing::info!("the access log is written again");
                self.failed = None;
            }
            Ok(()) => {}
            Err(Lost { lines, error }) => {
                self.metrics.access_lines_dropped(lines as u64);
                if self.failed.is_none() {
                    tracing::error!(%error, "the access log cannot be written; lines are dropped and counted");
                }
                self.failed = Some(Instant::now());
            }
        }
    }
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
        assert!(dropped(&metrics) > 0);
        gate.open();
    }

    fn dropped(metrics: &Metrics) -> u64 {
        let name = "lb_access_log_dropped_total ";
        metrics.render().lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
    }

    /// Fails until it is mended, with half a line written.
    #[derive(Clone, Default)]
    struct Broken(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (is_mended, written) = &mut *self.0.lock().unwrap();
            if *is_mended {
                written.extend_from_slice(bytes);
                return Ok(bytes.len());
            }
            if written.is_empty() {
                written.extend_from_slice(&bytes[..5]);
                return Ok(5);
            }
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_counted_by_line_and_no_line_is_joined_to_half_of_another() {
        let (metrics, sink) = (Metrics::default(), Broken::default());
        let writer = NonBlocking::new(metrics.clone());
        writer.write_to(sink.clone()).unwrap();
        writer.append(b"one\ntwo\nthree\n");
        writer.flush();
        assert_eq!(dropped(&metrics), 2);
        sink.0.lock().unwrap().0 = true;
        writer.append(b"four\n");
        writer.flush();
        assert_eq!(dropped(&metrics), 2);
        assert_eq!(String::from_utf8(sink.0.lock().unwrap().1.clone()).unwrap(), "one\nt\nfour\n");
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
