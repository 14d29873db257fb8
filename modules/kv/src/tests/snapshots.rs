//! Tests of snapshots: loading, saving, and damaged files.

use std::fs;
use std::path::Path;

use module_api::testing::{Host, Running};

use super::{Peer, request};
use crate::Kv;

fn start(folder: &Path, damaged: &str) -> Result<Running<Kv>, module_api::testing::Failure> {
    let host = Host::new().shared_memory(64 << 20).folder(folder).param("shards", "4");
    host.param("snapshot", "kv.snapshot").param("snapshot_damaged", damaged).start::<Kv>()
}

fn fill(kv: &Kv) {
    let mut peer = Peer::new(kv);
    for number in 0..500 {
        peer.ask_bytes(&request(&[b"SET", format!("key{number}").as_bytes(), &vec![b'v'; number]]));
    }
    peer.ask("SET number 42");
    peer.ask("SET later x PXAT 4102444800000");
    peer.ask_bytes(&request(&[b"SET", b"\x00\xff", b"\r\n"]));
}

#[test]
fn keys_saved_at_the_end_are_loaded_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let host = start(folder.path(), "fail").unwrap();
    fill(host.module());
    host.stop();
    let host = start(folder.path(), "fail").unwrap();
    let mut peer = Peer::new(host.module());
    assert_eq!(peer.ask("DBSIZE"), ":503\r\n");
    for number in 0..500 {
        assert_eq!(peer.ask(&format!("GET key{number}")), format!("${number}\r\n{}\r\n", "v".repeat(number)));
    }
    assert_eq!((peer.ask("INCR number"), peer.ask("PEXPIRETIME later")), (":43\r\n".to_owned(), ":4102444800000\r\n".to_owned()));
    assert_eq!(peer.ask_bytes(&request(&[b"GET", b"\x00\xff"])), "$2\r\n\r\n\r\n");
    assert!(host.logs().contains("snapshot read keys=503"));
}

#[test]
fn snapshots_are_written_by_clients_and_the_timer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kv.snapshot");
    let host = start(folder.path(), "fail").unwrap();
    let mut timer = host.timer().unwrap();
    timer.fire_timer("snapshot", 10_000).unwrap();
    assert!(!path.exists(), "nothing has changed");
    fill(host.module());
    timer.fire_timer("snapshot", 10).unwrap();
    assert!(path.exists(), "it was due");
    fs::remove_file(&path).unwrap();
    let mut peer = Peer::new(host.module());
    peer.ask("SET one more");
    timer.fire_timer("snapshot", 299).unwrap();
    assert!(!path.exists());
    timer.fire_timer("snapshot", 1).unwrap();
    assert!(path.exists());
    fs::remove_file(&path).unwrap();
    assert_eq!(peer.ask("SAVE"), "+OK\r\n");
    assert!(path.exists() && peer.ask("LASTSAVE").len() > 8);
    fs::remove_file(&path).unwrap();
    assert_eq!(peer.ask("BGSAVE"), "+Background saving started\r\n");
    timer.fire_timer("snapshot", 1).unwrap();
    assert!(path.exists());
    assert!(!folder.path().join("kv.snapshot.new").exists());
    fs::remove_file(&path).unwrap();
    drop(host);
    assert!(!path.exists(), "nothing has changed since");
}

#[test]
fn a_failed_snapshot_is_an_error_and_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let host = start(folder.path(), "fail").unwrap();
    fill(host.module());
    // A folder has the name of the new file.
    fs::create_dir(folder.path().join("kv.snapshot.new")).unwrap();
    let mut peer = Peer::new(host.module());
    let reply = peer.ask("SAVE");
    assert!(reply.starts_with("-ERR cannot write the snapshot: ") && reply.contains("(hint: is there room"), "{reply}");
    fs::remove_dir(folder.path().join("kv.snapshot.new")).unwrap();
    host.stop();
    assert!(folder.path().join("kv.snapshot").exists());
}

#[test]
fn every_damage_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kv.snapshot");
    let host = start(folder.path(), "fail").unwrap();
    fill(host.module());
    host.stop();
    let whole = fs::read(&path).unwrap();
    let mut cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "it ends too early"),
        (whole[..whole.len() - 1].to_vec(), "it ends too early"),
        (whole[..whole.len() / 2].to_vec(), ""),
        ([&whole[..], b"x"].concat(), "there are bytes after its end"),
        (b"not at all a snapshot".to_vec(), "it does not begin like a snapshot"),
        ([b"MODHKV\n\x02", &whole[8..]].concat(), "it is of another version"),
        ([&whole[..8], &[0, 0, 0, 0x7f], &whole[12..]].concat(), "a length is wrong"),
    ];
    // One bit is flipped, in bytes all over the file.
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut other = whole.clone();
        other[at] ^= 1 << (at % 8);
        cases.push((other, ""));
    }
    for (bytes, why) in cases {
        fs::write(&path, &bytes).unwrap();
        let failure = start(folder.path(), "fail").err().unwrap();
        assert_eq!(failure.step(), "proc_init");
        assert!(failure.text().contains("the snapshot is damaged: ") && failure.text().contains(why), "{why}: {failure}");
        assert!(failure.text().contains("(hint: move it away"), "{failure}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "it is left where it is");
    }
    let host = start(folder.path(), "start-empty").unwrap();
    let mut peer = Peer::new(host.module());
    assert_eq!(peer.ask("DBSIZE"), ":0\r\n");
    assert!(host.logs().contains("the snapshot is damaged: "));
    let kept: Vec<String> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(kept.len() == 1 && kept[0].starts_with("kv.snapshot.damaged-"), "{kept:?}");
}
