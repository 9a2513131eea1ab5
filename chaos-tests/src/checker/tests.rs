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
fn lives() {
    let made = r#"1 invoke life create v0 {"runs":true}
                  1 ok life create v0 {"id":"a","etag":11}
                  "#;
    let rows = [
        ("it is what it was to be", r#"2 ok life found v0 {"id":"a","phase":"running"}"#, ""),
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
