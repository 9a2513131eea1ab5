//! A run as a page that needs nothing else.

use std::fmt::Write;

use crate::{
    history::{End, Event, operations},
    nemesis::Storm,
    summary::Summary,
    workload::{locks, registers},
};

const WIDTH: f64 = 1_200.0;
const ROW: usize = 18;
/// Where the names end.
const LEFT: f64 = 140.0;

/// Renders it.
pub(crate) fn render(summary: &Summary, storm: &Storm, events: &[Event]) -> String {
    let mut page = String::new();
    let word = if summary.is_good() { "good" } else { "bad" };
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Chaos run {seed}</title>\
         <style>body{{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1240px;padding:0 1em;\
         color:#222;background:#fff}}pre{{background:#f4f4f2;padding:1em;overflow-x:auto}}\
         svg text{{font:11px system-ui,sans-serif;fill:#222}}.good{{color:#17663b}}.bad{{color:#a3211f}}\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}pre{{background:#242424}}\
         svg text{{fill:#ddd}}.good{{color:#5fc48d}}.bad{{color:#ee7c76}}}}</style>\
         <h1>Chaos run {seed}: <span class=\"{word}\">{word}</span></h1>",
        seed = summary.seed,
    );
    page += &timeline(summary, storm, events);
    let _ = write!(page, "<pre>{}</pre></html>", escape(&summary.to_string()));
    page
}

/// Faults, leaders, and what was done in each second.
fn timeline(summary: &Summary, storm: &Storm, events: &[Event]) -> String {
    let end_ns = events.last().map_or(1, |event| event.time_ns.max(1));
    let x = |at_ns: u64| LEFT + (WIDTH - LEFT) * at_ns as f64 / end_ns as f64;
    let kinds: Vec<&str> = summary.faults.keys().copied().collect();
    let height = (kinds.len() + 1) * ROW + 120;
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"timeline\">");
    for (row, kind) in kinds.iter().enumerate() {
        let y = row * ROW;
        let _ = write!(svg, "<text x=\"0\" y=\"{}\">{kind}</text>", y + 13);
        for strike in storm.strikes.iter().filter(|strike| strike.kind == *kind) {
            let (from, to) = (x(strike.begun_ns), x(strike.ended_ns));
            let colour = if strike.leader { "#c2483f" } else { "#d9a441" };
            let nodes: Vec<String> =
                strike.nodes.iter().map(|node| format!("n{}", node + 1)).collect();
            let told = strike.proof.as_ref().or(strike.doubt.as_ref());
            let _ = write!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{}\" width=\"{:.1}\" height=\"12\" rx=\"2\" fill=\"{colour}\"><title>{} · {}</title></rect>",
                y + 3,
                (to - from).max(1.0),
                nodes.join(" "),
                escape(told.map_or("", String::as_str)),
            );
        }
    }
    let y = kinds.len() * ROW;
    let _ = write!(svg, "<text x=\"0\" y=\"{}\">leader</text>", y + 13);
    for (at, reign) in storm.reigns.iter().enumerate() {
        let until = storm.reigns.get(at + 1).map_or(end_ns, |next| next.since_ns);
        let Some(leader) = reign.leader else { continue };
        let (from, to) = (x(reign.since_ns), x(until));
        let shade = 40 + leader * 8 % 40;
        let _ = write!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{}\" width=\"{:.1}\" height=\"12\" fill=\"hsl(210 45% {shade}%)\"><title>n{} · term {}</title></rect>",
            y + 3,
            (to - from).max(1.0),
            leader + 1,
            reign.term,
        );
    }
    svg += &bars(events, end_ns, y + ROW, &x);
    svg + "</svg>"
}

/// What was done in each second, and of what nobody knows.
fn bars(events: &[Event], end_ns: u64, top: usize, x: &impl Fn(u64) -> f64) -> String {
    const SECOND_NS: u64 = 1_000_000_000;
    const HEIGHT: f64 = 90.0;
    let seconds = usize::try_from(end_ns / SECOND_NS + 1).unwrap_or(1);
    let (mut done, mut unknown) = (vec![0_usize; seconds], vec![0_usize; seconds]);
    for row in [registers::MODEL, locks::MODEL].iter().flat_map(|model| operations(events, model)) {
        let (counts, at_ns) = match row.end {
            End::Ok(at, _) | End::Fail(at, _) => (&mut done, at),
            End::Unknown => (&mut unknown, row.invoked_ns),
        };
        if let Some(count) =
            usize::try_from(at_ns / SECOND_NS).ok().and_then(|at| counts.get_mut(at))
        {
            *count += 1;
        }
    }
    let most = done.iter().zip(&unknown).map(|(one, other)| one + other).max().unwrap_or(1).max(1);
    let mut svg = format!("<text x=\"0\" y=\"{}\">answers, {most}/s</text>", top + 13);
    let foot = top as f64 + 5.0 + HEIGHT;
    for (second, (done, unknown)) in done.iter().zip(&unknown).enumerate() {
        let from = x(second as u64 * SECOND_NS);
        let width = x((second as u64 + 1) * SECOND_NS) - from;
        let tall = |count: usize| HEIGHT * count as f64 / most as f64;
        let mut bar = |height: f64, above: f64, colour: &str| {
            let _ = write!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
                foot - above - height,
            );
        };
        bar(tall(*done), 0.0, "#4a8f6d");
        bar(tall(*unknown), tall(*done), "#8a8a86");
    }
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
