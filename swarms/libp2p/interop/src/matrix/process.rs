//! Processes of a cell: each is a group of its own, which ends with its handle.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Lines of standard error that are kept; older ones are dropped.
const LINES: usize = 12;

/// Bytes of standard output that are kept; the process gets no more than these to write.
const OUTPUT: u64 = 64 << 10;

/// A process that is one side of a cell. Its group is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    output: JoinHandle<String>,
    logging: Option<JoinHandle<()>>,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts a process without standard input.
    ///
    /// # Errors
    /// A text, if the program cannot be started.
    pub(super) fn start(command: &mut Command) -> Result<Self, String> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child = command
            .spawn()
            .map_err(|error| format!("{program} cannot be started: {error}"))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let output = tokio::spawn(async move {
            let mut bytes = Vec::new();
            if let Some(stdout) = stdout {
                // What was read until an error is kept.
                let _ = stdout.take(OUTPUT).read_to_end(&mut bytes).await;
            }
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let logging = stderr.map(|stderr| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    if log.len() == LINES {
                        log.pop_front();
                    }
                    log.push_back(line);
                }
            })
        });
        Ok(Self {
            child,
            group,
            output,
            logging,
            log,
        })
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// A text, if the system does not say how it ended.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub(super) async fn ended(&mut self) -> Result<ExitStatus, String> {
        self.child.wait().await.map_err(|error| error.to_string())
    }

    /// Returns the standard output of a process that has ended, and reads its log to the end.
    pub(super) async fn output(&mut self) -> String {
        if let Some(logging) = &mut self.logging {
            // What was read before a failure is kept.
            let _ = logging.await;
        }
        (&mut self.output).await.unwrap_or_default()
    }

    /// Returns the last lines of standard error, each after the name of the side.
    pub(super) fn log(&self, side: &str) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<_> = log.iter().map(|line| format!("\n    {side}: {line}")).collect();
        lines.concat()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // An error says that all of them have ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
