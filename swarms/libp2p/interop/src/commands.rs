//! The commands of a node of the mesh, which come on standard input.

use tokio::sync::mpsc;

/// Returns the lines of standard input, which a thread reads.
pub fn commands() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
