//! Cells: a swap is atomic, and no concurrent write is lost.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use p2p_discovery::cell::Swap;
use p2p_discovery::laws;
use p2p_discovery::{Cell, Error, FileCell, MemoryCell};

use crate::folder::Folder;
use crate::testbeds::TrackerTestbed;

async fn swaps(cell: &impl Cell) {
    assert_eq!(cell.load().await.expect("it opens"), b"");
    assert_eq!(
        cell.compare_and_swap(b"x", b"a").await.expect("it opens"),
        Swap::Differs(vec![])
    );
    assert_eq!(cell.load().await.expect("it opens"), b"");
    assert_eq!(
        cell.compare_and_swap(b"", b"a").await.expect("it opens"),
        Swap::Done
    );
    assert_eq!(
        cell.compare_and_swap(b"", b"b").await.expect("it opens"),
        Swap::Differs(b"a".to_vec())
    );
    assert_eq!(
        cell.compare_and_swap(b"a", b"b").await.expect("it opens"),
        Swap::Done
    );
    assert_eq!(cell.load().await.expect("it opens"), b"b");
    let full = vec![7; cell.max()];
    assert_eq!(
        cell.compare_and_swap(b"b", &full).await.expect("it fits"),
        Swap::Done
    );
    let error = cell.compare_and_swap(&full, &vec![7; cell.max() + 1]).await;
    assert!(matches!(error, Err(Error::Limit { .. })), "{error:?}");
    assert_eq!(cell.load().await.expect("it opens"), full);
    assert_eq!(
        cell.compare_and_swap(&full, b"").await.expect("it opens"),
        Swap::Done
    );
    assert_eq!(cell.load().await.expect("it opens"), b"");
}

#[tokio::test]
async fn a_memory_cell_swaps() {
    swaps(&MemoryCell::new(1000)).await;
}

#[tokio::test]
async fn a_file_cell_swaps_and_cells_of_one_path_are_the_same() {
    let folder = Folder::new("swaps");
    let cell = FileCell::new(folder.path("cell")).max(1000);
    swaps(&cell).await;
    assert_eq!(
        cell.compare_and_swap(b"", b"a").await.expect("it opens"),
        Swap::Done
    );
    let same = FileCell::new(folder.path("cell"));
    assert_eq!(same.load().await.expect("it opens"), b"a");
    assert_eq!(
        same.compare_and_swap(b"a", b"b").await.expect("it opens"),
        Swap::Done
    );
    assert_eq!(cell.load().await.expect("it opens"), b"b");
}

#[tokio::test]
async fn an_oversize_file_or_a_missing_folder_is_an_error() {
    let folder = Folder::new("bad");
    std::fs::write(folder.path("long"), [0; 1001]).expect("written");
    let cell = FileCell::new(folder.path("long")).max(1000);
    assert!(matches!(cell.load().await, Err(Error::Garbled { at: 1000, .. })));
    let nowhere = FileCell::new(folder.path("nowhere/cell"));
    assert_eq!(nowhere.load().await.expect("it was not written"), b"");
    assert!(matches!(
        nowhere.compare_and_swap(b"", b"a").await,
        Err(Error::Io { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_tracker_in_a_file_keeps_the_laws() {
    let folder = Folder::new("laws");
    let testbed = TrackerTestbed::new(FileCell::new(folder.path("cell")));
    assert_eq!(laws::check(&testbed).await, Ok(()));
}

/// The folder of the counter's cell, if this program starts itself as a counter.
const COUNT_IN: &str = "P2P_TEST_COUNT_IN";

/// Increments the number in a cell; returns the new value.
async fn count(cell: &FileCell) -> u64 {
    let mut value = cell.load().await.expect("it opens");
    loop {
        let text = std::str::from_utf8(&value).expect("never half a number");
        let number = if text.is_empty() {
            0
        } else {
            text.parse::<u64>().expect("a number")
        };
        let next = (number + 1).to_string();
        match cell
            .compare_and_swap(&value, next.as_bytes())
            .await
            .expect("it opens")
        {
            Swap::Done => return number + 1,
            Swap::Differs(actual) => value = actual,
        }
    }
}

/// Not a test: started by other tests in separate processes, it counts as often as it is told to.
#[tokio::test]
#[ignore = "started by other tests"]
async fn counter() {
    let Ok(task) = std::env::var(COUNT_IN) else { return };
    let (times, path) = task.split_once(':').expect("how often, and where");
    let cell = FileCell::new(path);
    for _ in 0..times.parse().expect("a number") {
        count(&cell).await;
    }
}

fn start_counter(times: u64, path: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().expect("this"))
        .args(["--exact", "cell::counter", "--ignored"])
        .env(COUNT_IN, format!("{times}:{}", path.display()))
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs")
}

#[tokio::test]
async fn no_write_of_concurrent_processes_is_lost() {
    let folder = Folder::new("contend");
    let path = folder.path("cell");
    let counters: Vec<Child> = (0..3).map(|_| start_counter(40, &path)).collect();
    for mut counter in counters {
        assert!(counter.wait().expect("it ends").success());
    }
    assert_eq!(FileCell::new(&path).load().await.expect("it opens"), b"120");
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_a_whole_value_and_no_lock() {
    let folder = Folder::new("killed");
    let path = folder.path("cell");
    let cell = FileCell::new(&path);
    for round in 0..5 {
        let before = count(&cell).await;
        let mut counter = start_counter(1_000_000, &path);
        let end = Instant::now() + Duration::from_mins(1);
        // Killed at some point of its work.
        while count(&cell).await < before + 10 + round {
            assert!(Instant::now() < end);
        }
        counter.kill().expect("it runs");
        counter.wait().expect("it ends");
        let last: u64 = count(&cell).await;
        assert_eq!(count(&cell).await, last + 1, "no other process counts");
    }
}
