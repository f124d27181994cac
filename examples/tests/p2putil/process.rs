//! Runs p2putil in separate processes.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Timeout for a line.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn p2putil<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2putil"));
    command.args(args);
    command
}

fn output<const N: usize>(args: [&str; N]) -> Output {
    p2putil(args).output().expect("it runs")
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Returns the standard output of a call that must succeed.
#[track_caller]
pub(crate) fn done<const N: usize>(args: [&str; N]) -> String {
    let output = output(args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// Returns the standard error of a call that must end with `code` and print no result.
#[track_caller]
pub(crate) fn refused<const N: usize>(args: [&str; N], code: i32) -> String {
    let output = output(args);
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr).to_owned()
}

/// A listener in a separate process, which ends with the test.
pub(crate) struct Listener {
    process: Child,
    lines: Receiver<String>,
}

impl Listener {
    pub(crate) fn start<const N: usize>(args: [&str; N]) -> Self {
        Self::spawn(p2putil(args))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let (line, lines) = channel();
        // The thread ends with the process, or with its receiver.
        std::thread::spawn(move || {
            let mut read = stdout.lines().map(|line| line.expect("UTF-8"));
            read.try_for_each(|text| line.send(text))
        });
        Self { process, lines }
    }

    pub(crate) fn line(&mut self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        line.unwrap_or_else(|error| panic!("no line arrived: {error}"))
    }

    /// Returns its standard input, if that is piped.
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.process.stdin.take().expect("a pipe")
    }

    /// Returns its exit code, once it ends.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        self.process.wait().expect("it ends").code()
    }

    pub(crate) fn addr(&mut self) -> String {
        let line = self.line();
        let addr = line.strip_prefix("addr ");
        addr.unwrap_or_else(|| panic!("{line:?} is not an address line"))
            .to_owned()
    }
}

#[cfg(unix)]
impl Listener {
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let killed = Command::new("kill").args([signal, &id]).status();
        assert!(killed.expect("kill runs").success());
    }

    /// Returns its exit code and the rest of its output, once it ends.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<String>) {
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            rest.push(line);
        }
        (self.process.wait().expect("it ends").code(), rest)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
