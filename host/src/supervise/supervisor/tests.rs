//! Two mains at once, and requests that main may not make.
//!
//! *Runs in:* tests. *Never:* forks.

use std::time::Duration;

use super::*;
use crate::config::{HandlerRef, ListenAddress, ListenConfig, ListenOptions, Position};
use crate::supervise::protocol::{FromSupervisor, MainLink, SupervisorLink};
use crate::sys::socket::seqpacket::Link;

fn supervisor() -> Supervisor {
    let address = ListenAddress::Udp("127.0.0.1:0".parse().unwrap());
    let handler = HandlerRef { module: "m".into(), handler: None };
    let (options, position) = (ListenOptions::default(), Position::CommandLine("--listen"));
    let config = ListenConfig { addresses: vec![address], options, handler, workers: None, position };
    let limits = TimeLimits { start: Duration::from_secs(60), stop: Duration::from_secs(10) };
    let spec = ServiceSpec {
        limits,
        pid_file: None,
        control: None,
        listeners: vec![PlannedListener::of(config).unwrap()],
        log_owner: None,
        modules: vec!["m".into()],
        tls: Vec::new(),
    };
    Supervisor::new(spec, Signals::watch().unwrap(), None, None)
}

/// A generation whose main is this test at the other end of the link.
fn generation(supervisor: &mut Supervisor, pid: i32) -> SupervisorLink {
    let (ours, theirs) = Link::pair().unwrap();
    supervisor.generations.push(Generation {
        pid: Pid::from_raw(pid),
        link: MainLink(ours),
        slots: Slots::new().unwrap(),
        stage: Stage::starting(supervisor.spec.limits, time::now_ns()),
        failure: None,
        given: Vec::new(),
        forked_ns: 0,
        ended: None,
    });
    SupervisorLink(theirs)
}

#[test]
fn two_mains_live_side_by_side() {
    let mut supervisor = supervisor();
    let first = generation(&mut supervisor, i32::MAX - 1);
    let second = generation(&mut supervisor, i32::MAX);
    for main in [&first, &second] {
        main.tell(&FromMain::Listen { listener: 0, nth: 0 }).unwrap();
    }
    (0..2).for_each(|index| supervisor.read_messages(index));
    for main in [&first, &second] {
        assert!(matches!(main.wait(), Ok(FromSupervisor::Socket(_, 0))));
    }
    assert_eq!(supervisor.sockets.descriptors().count(), 1, "both have duplicates of one socket");

    first.tell(&FromMain::Ready).unwrap();
    second.tell(&FromMain::Failed(Error::failed("no"))).unwrap();
    (0..2).for_each(|index| supervisor.read_messages(index));
    assert!(matches!(supervisor.generations[0].stage, Stage::Serving { .. }));
    assert!(matches!(supervisor.generations[1].stage, Stage::Undoing { .. }), "the failure of one is not that of the other");
    assert_eq!(supervisor.sockets.descriptors().count(), 1);

    supervisor.apply(0, StageEvent::StopAsked);
    assert!(matches!(first.poll(), Ok(Some(FromSupervisor::Stop))));
    assert!(matches!(second.poll(), Ok(None)));
}

#[test]
fn main_gets_no_socket_that_is_not_its_to_have() {
    let mut supervisor = supervisor();
    let main = generation(&mut supervisor, i32::MAX);
    for request in [FromMain::Listen { listener: 1, nth: 0 }, FromMain::Listen { listener: 0, nth: 1 }, FromMain::ListenForControl] {
        main.tell(&request).unwrap();
        supervisor.read_messages(0);
        assert!(matches!(main.wait(), Ok(FromSupervisor::Refused(_))), "{request:?}");
    }
    main.tell(&FromMain::Ready).unwrap();
    main.tell(&FromMain::Listen { listener: 0, nth: 0 }).unwrap();
    supervisor.read_messages(0);
    assert!(matches!(main.poll(), Ok(None)), "not after its start");
}
