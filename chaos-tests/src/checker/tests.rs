//! Checkers on histories that were made by hand: what is right passes, and each kind of wrong is found.

use super::{Judgement, judge};
use crate::history::{Event, Kind};

/// Lines are `PROCESS TYPE MODEL F KEY [VALUE or ERROR]`; each is 100 ms after the one before it.
fn events(text: &str) -> Vec<Event> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let events = lines.enumerate().map(|(index, line)| {
        let mut words = line.splitn(6, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let process = word().parse().expect("a process is a number");
        let kind = match word().as_str() {
            "invoke" => Kind::Invoke,
            "ok" => Kind::Ok,
            "fail" => Kind::Fail,
            _ => Kind::Info,
        };
        let (model, f, key, rest) = (word(), word(), word(), word());
        let value = serde_json::from_str(&rest).unwrap_or_default();
        let error = (kind == Kind::Fail).then_some(rest);
        let index = index as u64;
        Event { index, time_ns: index * 100_000_000, process, kind, model, f, key, value, error }
    });
    events.collect()
}

fn said(judgement: &Judgement) -> String {
    let all = judgement.violations.iter().map(|it| format!("{} {}: {}", it.model, it.key, it.what));
    all.collect::<Vec<_>>().join("; ")
}

/// A history, and what must be said of it; nothing when it is right.
fn check(name: &str, text: &str, expected: &str) {
    let judgement = judge(&events(text));
    let said = said(&judgement);
    assert!(judgement.undecided.is_empty(), "{name}");
    let right = if expected.is_empty() { said.is_empty() } else { said.contains(expected) };
    assert!(right, "{name}: {said:?} and not {expected:?}");
}

#[test]
fn registers() {
    let rows = [
        (
            "one after the other",
            r#"1 invoke register write r0 {"value":1}
               1 ok register write r0 {"etag":11}
               2 invoke register read r0
               2 ok register read r0 {"value":1,"etag":11}"#,
            "",
        ),
        (
            "a read misses what was acknowledged",
            r#"1 invoke register write r0 {"value":1}
               1 ok register write r0 {"etag":11}
               2 invoke register read r0
               2 ok register read r0 {"value":0,"etag":1}"#,
            "in no order",
        ),
        (
            "a read beside a write sees either",
            r#"1 invoke register write r0 {"value":1}
               2 invoke register read r0
               2 ok register read r0 {"value":0,"etag":1}
               3 invoke register read r0
               3 ok register read r0 {"value":1,"etag":11}
               1 ok register write r0 {"etag":11}"#,
            "",
        ),
        (
            "a read goes back in time",
            r#"1 invoke register write r0 {"value":1}
               2 invoke register read r0
               2 ok register read r0 {"value":1,"etag":11}
               3 invoke register read r0
               3 ok register read r0 {"value":0,"etag":1}
               1 ok register write r0 {"etag":11}"#,
            "in no order",
        ),
        (
            "a write of which nobody knows is seen, or not",
            r#"1 invoke register write r0 {"value":1}
               1 info register write r0
               2 invoke register read r0
               2 ok register read r0 {"value":0,"etag":1}
               2 invoke register read r0
               2 ok register read r0 {"value":1,"etag":11}"#,
            "",
        ),
        (
            "a write of which nobody knows is undone",
            r#"1 invoke register write r0 {"value":1}
               1 info register write r0
               2 invoke register read r0
               2 ok register read r0 {"value":1,"etag":11}
               2 invoke register read r0
               2 ok register read r0 {"value":0,"etag":1}"#,
            "in no order",
        ),
        (
            "what was refused is there",
            r#"1 invoke register write r0 {"value":1}
               1 fail register write r0 QUOTA
               2 invoke register read r0
               2 ok register read r0 {"value":1,"etag":11}"#,
            "in no order",
        ),
        (
            "two swaps from one value",
            r#"1 invoke register swap r0 {"from":0,"value":1}
               2 invoke register swap r0 {"from":0,"value":2}
               1 ok register swap r0 {"etag":11}
               2 ok register swap r0 {"etag":12}"#,
            "in no order",
        ),
        (
            "a swap is refused although nobody wrote",
            r#"1 invoke register swap r0 {"from":0,"value":1}
               1 fail register swap r0 ETAG_MISMATCH"#,
            "in no order",
        ),
        (
            "an old value from whoever is asked for any",
            r#"1 invoke register write r0 {"value":1}
               1 ok register write r0 {"etag":11}
               2 invoke register read-any r0
               2 ok register read-any r0 {"value":0,"etag":1}"#,
            "",
        ),
        (
            "a value that nobody wrote",
            r#"1 invoke register read-any r0
               1 ok register read-any r0 {"value":7,"etag":1}"#,
            "which nobody had written yet",
        ),
        (
            "older than what was asked for",
            r#"1 invoke register read-since r0 {"since":11}
               1 ok register read-since r0 {"value":0,"etag":1}"#,
            "and not 11",
        ),
        (
            "older than it may be",
            r#"1 invoke register write r0 {"value":1}
               1 ok register write r0 {"etag":11}
               2 invoke register read r1
               2 ok register read r1 {"value":0,"etag":1}
               2 invoke register read r1
               2 ok register read r1 {"value":0,"etag":1}
               3 invoke register read-aged r0 {"age_ms":200}
               3 ok register read-aged r0 {"value":0,"etag":1}"#,
            "and not 11",
        ),
        (
            "a request is done twice",
            r#"1 invoke register write r0 {"value":1}
               1 ok register write r0 {"etag":11}
               1 invoke register again r0 {"etag":11}
               1 ok register again r0 {"etag":12}"#,
            "and again",
        ),
        (
            "a request that was done is refused",
            r#"1 invoke register swap r0 {"from":0,"value":1}
               1 ok register swap r0 {"etag":11}
               1 invoke register again r0 {"etag":11}
               1 fail register again r0 ETAG_MISMATCH"#,
            "and then refused",
        ),
    ];
    for (name, text, expected) in rows {
        check(name, text, expected);
    }
}

#[test]
fn locks() {
    let rows = [
        (
            "one holder after the other",
            r#"1 invoke lock acquire l {"ttl_ms":1000}
               1 ok lock acquire l {"fence":1}
               1 invoke lock write l {"fence":1}
               1 ok lock write l
               1 invoke lock release l {"fence":1}
               2 invoke lock acquire l {"ttl_ms":1000}
               1 ok lock release l
               2 ok lock acquire l {"fence":2}"#,
            "",
        ),
        (
            "two hold it",
            r#"1 invoke lock acquire l {"ttl_ms":1000}
               1 ok lock acquire l {"fence":1}
               2 invoke lock acquire l {"ttl_ms":1000}
               2 ok lock acquire l {"fence":2}"#,
            "were held at one time",
        ),
        (
            "two hold it, since it was renewed",
            r#"1 invoke lock acquire l {"ttl_ms":300}
               1 ok lock acquire l {"fence":1}
               1 invoke lock renew l {"fence":1,"ttl_ms":900}
               1 ok lock renew l
               2 invoke lock acquire l {"ttl_ms":1000}
               2 ok lock acquire l {"fence":2}"#,
            "were held at one time",
        ),
        (
            "its time is over",
            r#"1 invoke lock acquire l {"ttl_ms":300}
               1 ok lock acquire l {"fence":1}
               2 invoke lock acquire l {"ttl_ms":1000}
               2 ok lock acquire l {"fence":2}"#,
            "",
        ),
        (
            "one fence for two",
            r#"1 invoke lock acquire l {"ttl_ms":100}
               1 ok lock acquire l {"fence":1}
               2 invoke lock acquire l {"ttl_ms":100}
               2 ok lock acquire l {"fence":1}"#,
            "granted twice",
        ),
        (
            "a lower fence later",
            r#"1 invoke lock acquire l {"ttl_ms":100}
               1 ok lock acquire l {"fence":5}
               2 invoke lock acquire l {"ttl_ms":100}
               2 ok lock acquire l {"fence":4}"#,
            "granted at 200000000 ns, after 5",
        ),
        (
            "an early question with a late answer",
            r#"3 invoke lock acquire l {"ttl_ms":100}
               1 invoke lock acquire l {"ttl_ms":100}
               1 ok lock acquire l {"fence":5}
               2 invoke lock acquire l {"ttl_ms":100}
               2 ok lock acquire l {"fence":6}
               3 ok lock acquire l {"fence":4}"#,
            "",
        ),
        (
            "a holder is refused within its time",
            r#"1 invoke lock acquire l {"ttl_ms":1000}
               1 ok lock acquire l {"fence":1}
               1 invoke lock write l {"fence":1}
               1 fail lock write l 2 was here"#,
            "was refused, 700 ms before its end",
        ),
        (
            "an old holder is refused",
            r#"1 invoke lock acquire l {"ttl_ms":200}
               1 ok lock acquire l {"fence":1}
               1 invoke lock write l {"fence":1}
               1 fail lock write l 2 was here"#,
            "",
        ),
    ];
    for (name, text, expected) in rows {
        check(name, text, expected);
    }
}

#[test]
fn watches() {
    let written = r#"1 invoke register create r0
                     1 ok register create r0 {"id":"a","etag":1}
                     1 invoke register write r0 {"value":1}
                     1 ok register write r0 {"etag":11}"#;
    let rows = [
        ("everything, once, in order", r#"[[10,["b"]],[11,["a"]],[12,["b"]]]"#, ""),
        ("what was acknowledged is missing", r#"[[10,["b"]],[12,["b"]]]"#, "at 11 was not sent"),
        ("another object's event is there", r#"[[11,["b"]],[12,["b"]]]"#, "at 11 was not sent"),
        ("something comes twice", r#"[[11,["a"]],[11,["a"]],[12,["b"]]]"#, "sent 11 after 11"),
        ("it goes back in time", r#"[[11,["a"]],[12,["b"]],[11,["a"]]]"#, "sent 11 after 12"),
        ("the first one is missing", r#"[[12,["b"]]]"#, "at 11 was not sent"),
    ];
    for (name, sent, expected) in rows {
        let text = format!(
            "{written}\n2 invoke watch begin n1\n2 ok watch begin n1 {{\"since\":9}}\n\
             2 invoke watch events n1\n2 ok watch events n1 {sent}"
        );
        check(name, &text, expected);
    }
    let two = r#"1 invoke watch events n1
                 1 ok watch events n1 [[10,["a"]],[11,["b"]],[12,["a"]]]
                 2 invoke watch events n2
                 2 ok watch events n2 [[10,["a"]],[12,["a"]]]"#;
    check("one watcher misses what another one was sent", two, "watch n2: 11 was not sent");
    let gap = r#"1 invoke watch events n1
                 1 ok watch events n1 [[10,["a"]],[11,["b"]],[12,["a"]]]
                 2 invoke watch events n2
                 2 ok watch events n2 [[10,["a"]]]
                 2 invoke watch gap n2
                 2 ok watch gap n2 {"after":10,"to":12}
                 2 invoke watch events n2
                 2 ok watch events n2 [[13,["a"]]]"#;
    check("it was told what is gone", gap, "");
}

/// Many at once on one key: the search ends, and finds the one read that is wrong.
#[test]
fn a_long_history_is_decided() {
    let mut lines = String::new();
    for turn in 0..60 {
        for process in 0..8 {
            let value = turn * 8 + process + 1;
            lines += &format!("{process} invoke register write r0 {{\"value\":{value}}}\n");
        }
        for process in 0..8 {
            lines +=
                &format!("{process} ok register write r0 {{\"etag\":{}}}\n", turn * 8 + process);
        }
    }
    check("right", &lines, "");
    let wrong = "9 invoke register read r0\n9 ok register read r0 {\"value\":3,\"etag\":3}\n";
    check("wrong", &(lines + wrong), "in no order");
}

#[test]
fn backups() {
    let written = r#"1 invoke register create r0 {}
                     1 ok register create r0 {"id":"a","etag":10}
                     1 invoke register write r0 {"value":1}
                     1 ok register write r0 {"etag":11}
                     1 invoke register write r0 {"value":2}
                     1 info register write r0
                     "#;
    let rows = [
        ("all is there", 12, r#"ok backup restored r0 {"value":1,"etag":11}"#, ""),
        ("what nobody knew was done", 12, r#"ok backup restored r0 {"value":2,"etag":12}"#, ""),
        (
            "it is too old",
            10,
            r#"ok backup restored r0 {"value":0,"etag":10}"#,
            "11 was acknowledged before",
        ),
        (
            "a write is lost",
            12,
            r#"ok backup restored r0 {"value":0,"etag":10}"#,
            "1 of 11 was there",
        ),
        (
            "another value",
            12,
            r#"ok backup restored r0 {"value":7,"etag":11}"#,
            "1 of 11 was there",
        ),
        ("it is not there", 12, "fail backup restored r0 NOT_FOUND", "NOT_FOUND"),
    ];
    for (name, revision, restored, expected) in rows {
        let made = format!(
            r#"2 invoke backup make 0
               2 ok backup make 0 {{"revision":{revision}}}
               3 invoke backup restored r0 {{"backup":"0"}}
               3 {restored}"#
        );
        check(name, &format!("{written}{made}"), expected);
    }
}

#[test]
fn queue() {
    let made = r#"1 invoke queue probe q0 {}
                  1 ok queue probe q0 {"operation":"a","etag":11}
                  1 invoke queue probe q1 {}
                  1 info queue probe q1
                  "#;
    let found = |id: &str, done: bool| {
        format!(
            r#"2 invoke queue found {id}
               2 ok queue found {id} {{"kind":"probe","is_part":false,"status":"it","done":{done},"message":""}}
               "#
        )
    };
    let rows = [
        ("it has ended", found("a", true), ""),
        ("what nobody knew is there too", found("a", true) + &found("b", true), ""),
        ("it is lost", found("b", true), "a was acknowledged and is not there"),
        ("it goes on for ever", found("a", false), "this probe has not ended"),
        (
            "there are too many",
            found("a", true) + &found("b", true) + &found("c", true),
            "there are 3",
        ),
    ];
    for (name, text, expected) in rows {
        check(name, &format!("{made}{text}"), expected);
    }
}

#[test]
fn lists() {
    let appended = r#"1 invoke list append l0 {"element":1,"at":0}
                      1 ok list append l0 {"etag":11}
                      1 invoke list append l0 {"element":2,"at":1}
                      1 info list append l0
                      3 invoke list append l0 {"element":3,"at":1}
                      3 fail list append l0 ETAG_MISMATCH
                      "#;
    let read = |elements: &str| format!("4 invoke list read l0\n4 ok list read l0 [{elements}]\n");
    let rows = [
        ("what was appended", read("1"), ""),
        ("and what nobody knew", read("1") + &read("1,2"), ""),
        ("it is lost", read("1,2") + &read(""), "1 was appended, and is not there later"),
        (
            "what nobody knew goes again",
            read("1,2") + &read("1"),
            "2 was read, and is not there later",
        ),
        ("twice", read("1,2,1"), "twice"),
        ("two orders", read("1,2") + &read("2"), "no beginning"),
        ("it was refused", read("1,3"), "3 was refused, and is there"),
    ];
    for (name, text, expected) in rows {
        check(name, &format!("{appended}{text}"), expected);
    }
}

#[test]
fn lives() {
    let made = r#"1 invoke life create v0 {"runs":true}
                  1 ok life create v0 {"id":"a","etag":11}
                  "#;
    let rows = [
        ("it is what it was to be", r#"2 ok life found v0 {"id":"a","phase":"running"}"#, ""),
        ("it waits", r#"2 ok life found v0 {"id":"a","phase":"restarting"}"#, ""),
        ("it stands still", r#"2 ok life found v0 {"id":"a","phase":"stopped"}"#, "it is stopped"),
        ("it is lost", "2 ok life found v0 {}", "in the end it is not there"),
        (
            "there is another one",
            r#"2 ok life found v0 {"id":"b","phase":"running"}"#,
            "found was of b, and it was a",
        ),
        (
            "it runs although it was stopped",
            r#"1 invoke life stop v0
               1 ok life stop v0 {"id":"a","etag":12}
               2 ok life found v0 {"id":"a","phase":"running"}"#,
            "in the end it is running",
        ),
        (
            "nobody knows whether it was stopped",
            r#"1 invoke life stop v0
               1 info life stop v0
               2 ok life found v0 {"id":"a","phase":"running"}"#,
            "",
        ),
        (
            "it is there although it was deleted",
            r#"1 invoke life delete v0
               1 ok life delete v0 {"id":"a","etag":12}
               2 ok life found v0 {"id":"a","phase":"stopped"}"#,
            "in the end it is stopped",
        ),
        (
            "nobody knows whether it was deleted",
            r#"1 invoke life delete v0
               1 info life delete v0
               2 ok life found v0 {}"#,
            "",
        ),
        (
            "it is not found although it was made",
            r#"1 invoke life stop v0
               1 fail life stop v0 NOT_FOUND
               2 ok life found v0 {"id":"a","phase":"running"}"#,
            "stop did not find it",
        ),
        (
            "a request is done again",
            r#"3 invoke life again v0 {"etag":11}
               3 ok life again v0 {"id":"a","etag":13}
               2 ok life found v0 {"id":"a","phase":"running"}"#,
            "a request was done at 11, and again",
        ),
    ];
    for (name, text, expected) in rows {
        let text = text.replace("2 ok life found v0", "2 invoke life found v0\n2 ok life found v0");
        check(name, &format!("{made}{text}"), expected);
    }
}

#[test]
fn bodies() {
    // `BODY host executions` of one VM, each `BEGUN-ENDED` under a fence, and how it is found in the end.
    let body = |host: usize, executions: &str, fences: &str| {
        format!(
            r#"7 invoke body record a
               7 ok body record a {{"host":"h{}","executions":[{executions}],"fences":[{fences}]}}"#,
            host + 1
        )
    };
    let real = |host: usize, executions: &str| body(host, executions, "").replace("[]}", "null}");
    let ran =
        |begun: u64, ended: &str| format!(r#"{{"begun_ns":{begun},"ended_ns":{ended},"fence":5}}"#);
    let found = |phase: &str| {
        format!(
            r#"1 invoke life create v0 {{"runs":true}}
               1 ok life create v0 {{"id":"a","etag":11}}
               1 invoke life stop v0
               1 info life stop v0
               2 invoke life found v0
               2 ok life found v0 {{"id":"a","phase":"{phase}"}}"#
        )
    };
    let unasked = r#"{"begun_ns":10,"ended_ns":20,"fence":null}"#;
    let rows = [
        (
            "one after the other",
            [body(0, &ran(10, "50"), "5"), body(1, &ran(50, "null"), "6")],
            "running",
            "",
        ),
        (
            "at one time",
            [body(0, &ran(10, "50"), "5"), body(1, &ran(49, "null"), "6")],
            "running",
            "h1 and h2 executed it at one time",
        ),
        (
            "the first one goes on for ever",
            [body(0, &ran(10, "null"), "5"), body(1, &ran(90, "95"), "6")],
            "running",
            "h1 and h2 executed it at one time",
        ),
        (
            "both in the end",
            [body(0, &ran(10, "null"), "5"), body(1, &ran(49, "null"), "6")],
            "running",
            "2 hosts execute it",
        ),
        (
            "none in the end",
            [body(0, &ran(10, "50"), "5"), body(1, "", "")],
            "running",
            "0 hosts execute it",
        ),
        (
            "although it is stopped",
            [body(0, &ran(10, "null"), "5"), body(1, "", "")],
            "stopped",
            "1 hosts execute it",
        ),
        ("it is stopped", [body(0, &ran(10, "50"), "5"), body(1, "", "")], "stopped", ""),
        (
            "a real one that was asked for, as nobody has written down",
            [real(0, r#"{"begun_ns":10,"ended_ns":50,"fence":null}"#), real(1, "")],
            "stopped",
            "",
        ),
        (
            "a real one at one time",
            [
                real(0, r#"{"begun_ns":10,"ended_ns":50,"fence":null}"#),
                real(1, r#"{"begun_ns":49,"ended_ns":null,"fence":null}"#),
            ],
            "running",
            "h1 and h2 executed it at one time",
        ),
        (
            "unasked",
            [body(0, unasked, "5"), body(1, "", "")],
            "stopped",
            "h1 executed it at 10 ns unasked",
        ),
        (
            "it goes on under an older fence",
            [
                body(0, &ran(10, "50"), "5"),
                body(1, r#"{"begun_ns":60,"ended_ns":70,"fence":4}"#, "4"),
            ],
            "stopped",
            "h2 executed it under fence Some(4)",
        ),
        (
            "a fence falls",
            [body(0, "", "5,7"), body(1, "", "6,5")],
            "stopped",
            "h2 acted under fence 5 after it had seen 6",
        ),
    ];
    for (name, bodies, phase, expected) in rows {
        check(name, &format!("{}\n{}", bodies.join("\n"), found(phase)), expected);
    }
}
