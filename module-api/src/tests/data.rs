//! Parameters, shared memory, locks, datagrams and listeners.

use std::ffi::{CStr, c_char, c_void};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::{self, *};
use crate::fake::{FakeMutex, Reply, fake, install};
use crate::params::ParamSet;
use crate::prelude::*;
use crate::udp::Batch;
use crate::{LockFailure, SendError, mutex, shm};

crate::params! {
    struct SomeParams {
        /// Text put before
        /// each answer.
        prefix: String = "",
        period: Duration = "1s",
        answers: i64 = -3 in -5..=100,
        enabled: bool = true,
        peer: String,
    }
}

pub(super) fn c_text(text: *const c_char) -> Option<&'static str> {
    // SAFETY: not null, and so a constant of the macro with a zero byte at its end.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_str().unwrap())
}

#[test]
fn parameters_are_described_and_read() {
    let rows: Vec<_> =
        SomeParams::TABLE.iter().map(|row| (c_text(row.name), row.kind, row.flags, c_text(row.default_text), row.min, row.max)).collect();
    let expected = [
        (Some("prefix"), PARAM_STRING, 0, Some(""), 0, 0),
        (Some("period"), PARAM_DURATION, 0, Some("1s"), 0, 0),
        (Some("answers"), PARAM_INT, PARAM_RANGE, Some("-3"), -5, 100),
        (Some("enabled"), PARAM_BOOL, 0, Some("true"), 0, 0),
        (Some("peer"), PARAM_STRING, PARAM_REQUIRED, None, 0, 0),
    ];
    assert_eq!(rows, expected);
    assert_eq!(c_text(SomeParams::TABLE[0].help), Some("Text put before each answer."));
    assert_eq!(c_text(SomeParams::TABLE[1].help), None);

    let text = |text: &'static str| Str { ptr: text.as_ptr().cast(), len: text.len() };
    let target = |index: usize| SomeParams::TABLE[index].target;
    // SAFETY: each target is written with its kind's type, and nobody reads it yet.
    unsafe {
        target(0).cast::<Str>().write(text("prefix"));
        target(1).cast::<i64>().write(1_500_000_000);
        target(2).cast::<i64>().write(-4);
        target(3).cast::<u32>().write(1);
        target(4).cast::<Str>().write(text("peer"));
    }
    let SomeParams { prefix, period, answers, enabled, peer } = SomeParams::read().unwrap();
    assert_eq!((&*prefix, period, answers, enabled, &*peer), ("prefix", Duration::from_millis(1500), -4, true, "peer"));

    // SAFETY: as above.
    unsafe { target(1).cast::<i64>().write(-1) };
    assert_eq!(SomeParams::read().err().unwrap().text(), "parameter \"period\" is negative: -1");
}

crate::shm_struct! {
    struct Counters {
        one: AtomicU64,
        many: [AtomicU64; 3],
    }
}

#[test]
fn shared_memory_is_zeroed_and_runs_out_with_a_text() {
    install();
    let counters = shm::zeroed::<Counters>().unwrap();
    counters.many[2].fetch_add(counters.one.fetch_add(1, Ordering::Relaxed) + 2, Ordering::Relaxed);
    let same = counters;
    assert_eq!((same.one.load(Ordering::Relaxed), same.many[2].load(Ordering::Relaxed)), (1, 2));
    assert_eq!(*shm::value(7_u64).unwrap(), 7);
    assert_eq!(*shm::zeroed_slice::<u8>(3).unwrap(), [0, 0, 0]);
    assert_eq!(shm::zeroed_slice::<u64>(0).unwrap().len(), 0);

    fake(|fake| fake.memory = 100);
    let cases = [
        (shm::zeroed_slice::<u64>(13).err(), "no shared memory for 13 x 8 bytes (u64)"),
        (shm::zeroed_slice::<u64>(usize::MAX).err(), "no shared memory for 18446744073709551615 x 8 bytes (u64)"),
        (shm::value([0_u8; 101]).err(), "no shared memory for 1 x 101 bytes"),
    ];
    for (error, text) in cases {
        assert!(error.unwrap().text().starts_with(text), "{text}");
    }
}

#[test]
fn per_process_values_are_apart() {
    install();
    let counts = shm::per_process::<AtomicU64>(3).unwrap();
    for process_no in 0..3 {
        fake(|fake| fake.process.process_no = process_no);
        counts.mine().store(process_no as u64 + 1, Ordering::Relaxed);
    }
    let values: Vec<_> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert_eq!(values, [1, 2, 3]);
    let address = |process_no| std::ptr::from_ref(counts.of(process_no).unwrap()).addr();
    assert_eq!((address(0) % 64, address(1) - address(0)), (0, 64));
    assert!(counts.of(3).is_none());
    fake(|fake| fake.process.process_no = -1);
    assert!(std::panic::catch_unwind(|| counts.mine().load(Ordering::Relaxed)).is_err());
}

fn set_all_mutexes(state: FakeMutex) {
    fake(|fake| fake.mutexes.values_mut().for_each(|mutex| *mutex = state));
}

fn only_mutex() -> FakeMutex {
    fake(|fake| *fake.mutexes.values().next().unwrap())
}

#[test]
fn a_lock_says_that_its_owner_died() {
    install();
    let sum = mutex::new([1_u64, 2]).unwrap();
    {
        let mut guard = sum.lock().unwrap();
        guard[0] += 1;
        assert_eq!(only_mutex(), FakeMutex::Held);
        assert!(matches!(sum.lock(), Err(LockError::Failed(LockFailure::Deadlock))));
        assert!(matches!(sum.try_lock(), Err(LockError::Failed(LockFailure::Busy))));
    }
    assert_eq!(only_mutex(), FakeMutex::Free);

    set_all_mutexes(FakeMutex::OwnerDied);
    let Err(LockError::OwnerDied(owner)) = sum.lock() else { panic!("the owner died") };
    assert_eq!((owner.dead().pid().get(), owner.dead().process_no()), (4711, Some(3)));
    let guard = owner.repair(|sum| sum[1] = 0).unwrap();
    assert_eq!((*guard, only_mutex()), ([2, 0], FakeMutex::Held));
    drop(guard);
    assert_eq!(only_mutex(), FakeMutex::Free);

    set_all_mutexes(FakeMutex::OwnerDied);
    let guard = sum.lock_or_repair(|sum, dead| sum[0] = dead.pid().get() as u64).unwrap();
    assert_eq!(guard[0], 4711);
    drop(guard);

    set_all_mutexes(FakeMutex::OwnerDied);
    drop(sum.lock());
    assert_eq!(only_mutex(), FakeMutex::NotRecoverable);
    assert_eq!(sum.lock_or_repair(|_, _| {}).err(), Some(LockFailure::NotRecoverable));
}

#[test]
fn a_panic_does_not_release_half_changed_data() {
    install();
    let sum = mutex::new(0_u64).unwrap();
    let half_way = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let _guard = sum.lock().unwrap();
        panic!("half-way");
    }));
    assert!(half_way.is_err());
    assert_eq!(only_mutex(), FakeMutex::Held);
}

/// Calls `handler` with datagrams of these contents, from 127.0.0.1:5060, with a larger stride than
/// this version's.
fn with_batch(contents: &[&[u8]], handler: impl for<'b> FnOnce(&Batch<'b>)) {
    #[repr(C)]
    struct Wider {
        datagram: abi::Datagram,
        later_field: u64,
    }
    let peer = [2, 0, 0x13, 0xc4, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0_u8];
    let datagrams: Vec<Wider> = contents
        .iter()
        .map(|data| Wider {
            datagram: abi::Datagram {
                data: if data.is_empty() { std::ptr::null() } else { data.as_ptr() },
                len: data.len() as u32,
                peer_len: if data.starts_with(b"nobody") { 0 } else { 16 },
                local_len: 6,
                peer: peer.as_ptr().cast::<c_void>(),
                local: b"\x01\0\0abc".as_ptr().cast(),
            },
            later_field: u64::MAX,
        })
        .collect();
    let mut raw = UdpBatch {
        size: size_of::<UdpBatch>() as u32,
        count: datagrams.len() as u32,
        datagrams: datagrams.as_ptr().cast(),
        stride: size_of::<Wider>() as u32,
        listener: 5,
    };
    install();
    // SAFETY: the batch outlives the call.
    let batch = unsafe { Batch::new(&raw mut raw) };
    handler(&batch);
}

#[test]
fn answers_are_copied_borrowed_or_written_in_place() {
    with_batch(&[b"one", b"", b"three"], |batch| {
        assert_eq!((batch.len(), batch.iter().len(), batch.listener() == Listener::new(5)), (3, 3, true));
        for datagram in batch {
            assert_eq!(datagram.peer().inet(), Some("127.0.0.1:5060".parse().unwrap()));
            assert_eq!((datagram.local().to_string().as_str(), datagram.is_answerable()), ("@abc", true));
            datagram.reply(&[0]).unwrap();
            datagram.reply_borrowed(datagram.data()).unwrap();
        }
        let last = batch.datagram(2).unwrap();
        assert!(batch.datagram(3).is_none());
        last.reply_with(10, |buffer| {
            assert_eq!(last.reply(b"no"), Err(SendError::Nested));
            assert_eq!(last.reply_borrowed(b"no"), Err(SendError::Nested));
            assert_eq!(last.reply_with(1, |_| 1), Err(SendError::Nested));
            buffer[..2].copy_from_slice(b"ab");
            3
        })
        .unwrap();
        assert_eq!(last.reply_with(65_508, |_| 0), Err(SendError::Invalid));
        assert_eq!(last.reply_with(2, |_| 3), Err(SendError::Invalid));
        assert_eq!(last.reply(&vec![0; 65_508]), Err(SendError::Invalid));
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| last.reply_with(1, |_| panic!("while writing"))));
        assert!(panicked.is_err());
        last.reply(b"end").unwrap();
    });
    let replies = fake(|fake| std::mem::take(&mut fake.replies));
    let expected: [(u32, &[u8], Reply); 8] = [
        (0, &[0], Reply::Copied),
        (0, b"one", Reply::Borrowed),
        (1, &[0], Reply::Copied),
        (1, b"", Reply::Borrowed),
        (2, &[0], Reply::Copied),
        (2, b"three", Reply::Borrowed),
        (2, b"ab.", Reply::Buffer),
        (2, b"end", Reply::Copied),
    ];
    let replies: Vec<_> = replies.iter().map(|(index, data, kind)| (*index, data.as_slice(), *kind)).collect();
    assert_eq!(replies, expected);
}

#[test]
fn a_peer_without_a_name_is_seen() {
    with_batch(&[b"nobody"], |batch| {
        let datagram = batch.datagram(0).unwrap();
        assert_eq!((datagram.peer(), datagram.is_answerable()), (Address::Unnamed, false));
    });
    assert_eq!(SendError::from_code(abi::E_NO_PEER), Err(SendError::NoPeer));
}

#[test]
fn listeners_are_asked_for_found_and_sent_from() {
    install();
    UdpListen::new("127.0.0.1:0").handler("echo").workers(2).register().unwrap();
    UdpListen::new("[::1]:5060").register().unwrap();
    assert!(UdpListen::new("a\0b").register().is_err());
    let listens = fake(|fake| std::mem::take(&mut fake.listens));
    assert_eq!(listens, [("127.0.0.1:0".into(), Some("echo".into()), 2), ("[::1]:5060".into(), None, 0)]);

    assert_eq!(Listener::find(1), None);
    let listener = Listener::find(0).unwrap();
    let address = listener.address().unwrap();
    assert_eq!(address, "127.0.0.1:5060".parse().unwrap());
    listener.send_to(address, b"hi").unwrap();
    let sent = fake(|fake| std::mem::take(&mut fake.sent));
    assert_eq!((sent.len(), sent[0].0, &sent[0].1[..8], &*sent[0].2), (1, 5, &[2, 0, 0x13, 0xc4, 127, 0, 0, 1][..], &b"hi"[..]));

    let addresses: Vec<String> = listener.addresses().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:5060", "/run/x"]);
    listener.send_from(Path::new("/run/x"), Address::Abstract(b"y".into()), b"ho").unwrap();
    let sent = fake(|fake| std::mem::take(&mut fake.sent_from));
    assert_eq!(sent, [(5, b"\x01\0/run/x\0".to_vec(), b"\x01\0\0y".to_vec(), b"ho".to_vec())]);
    assert_eq!(listener.send_to(Address::Unnamed, b"hi"), Err(SendError::NoPeer));
    assert_eq!(listener.send_from(Address::Unnamed, address, b"hi"), Err(SendError::Invalid));
}
