//! Takes secrets out of text: what looks like one, and what stands where one may stand.

use serde_json::Value;

/// What stands where a secret was.
const GONE: &str = "[redacted]";
/// How our own secrets begin: credentials and join tokens.
const OURS: [&str; 2] = ["nct.", "ncj."];
/// How fields end whose values may hold anything, as JSON, TOML or a log's text has them; without case, `_` and `-`.
const FIELDS: &[&str] = &[
    "userdata",
    "cmdline",
    "arguments",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "bearer",
    "authorization",
    "authoritykey",
    "privatekey",
    "apikey",
    "accesskey",
    "credentials",
    // Addresses of webhooks are secrets.
    "url",
];

/// The text without secrets.
pub(super) fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
            out.push_str(GONE);
            out.push('\n');
            // To its end, or to that of the text.
            if !line.contains("-----END") {
                lines.by_ref().find(|rest| rest.contains("-----END"));
            }
            continue;
        }
        out.push_str(&without_urls(&without_ours(&without_fields(line))));
    }
    out
}

/// The value without secrets: what its fields hold that may hold one, and what looks like one elsewhere.
pub(super) fn without_secrets(value: Value) -> Value {
    match value {
        Value::String(text) => redacted(&text).into(),
        Value::Array(values) => values.into_iter().map(without_secrets).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(field, value)| {
                let value = if may_hold_one(&field) { GONE.into() } else { without_secrets(value) };
                (field, value)
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// Whether what a field of this name holds may be a secret.
fn may_hold_one(field: &str) -> bool {
    let plain: String =
        field.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    FIELDS.iter().any(|end| plain.ends_with(end))
}

/// A line of `field = value`, `"field": value` or `field=value`, up to the first field that may hold a secret.
fn without_fields(line: &str) -> String {
    for (at, _) in line.match_indices(['=', ':']) {
        let before = line[..at].trim_end_matches(['"', '\'', ' ', '\\']);
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let begin = before.rfind(|c: char| !part(c)).map_or(0, |last| last + 1);
        // A letter behind a backslash is a sign of its own.
        let begin = if line[..begin].ends_with('\\') { begin + 1 } else { begin };
        if before.get(begin..).is_some_and(may_hold_one) {
            let ends = if line.ends_with('\n') { "\n" } else { "" };
            return format!("{} {GONE}{ends}", &line[..=at]);
        }
    }
    line.to_owned()
}

fn without_ours(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = OURS.iter().filter_map(|begin| rest.find(begin)).min() {
        // A letter behind a backslash is a sign of its own.
        let before = rest[..at].strip_suffix(['n', 't', 'r']).filter(|it| it.ends_with('\\'));
        let before = before.unwrap_or(&rest[..at]);
        let begins = !before.ends_with(|c: char| c.is_ascii_alphanumeric());
        let length = rest[at..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')))
            .unwrap_or(rest.len() - at);
        out.push_str(&rest[..at]);
        out.push_str(if begins { GONE } else { &rest[at..at + length] });
        rest = &rest[at + length..];
    }
    out + rest
}

/// `scheme://user:password@host` without user and password.
fn without_urls(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://").map(|at| at + 3) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>');
        let url = &rest[..rest.find(ends).unwrap_or(rest.len())];
        // To the last sign of its kind: a password may hold a slash.
        if let Some(sign) = url.rfind('@') {
            out.push_str(GONE);
            rest = &rest[sign..];
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_json_stays_json() {
        let value = serde_json::json!({
            "name": "web", "spec": {"userData": "x", "vcpus": 1}, "said": ["see https://u:p@h/", "nct.a.b"],
        });
        let expected = serde_json::json!({
            "name": "web", "spec": {"userData": GONE, "vcpus": 1}, "said": ["see https://[redacted]@h/", GONE],
        });
        assert_eq!(without_secrets(value), expected);
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (text, expected) in [
            ("host h1 is lost\n", "host h1 is lost\n"),
            ("\"userData\": \"#cloud-config\\npassword: x\",\n", "\"userData\": [redacted]\n"),
            ("arguments = [\"--password\", \"hunter2\"]\n", "arguments = [redacted]\n"),
            ("  password=hunter2 and more", "  password= [redacted]"),
            ("sent nct.AAAA.b-c_d to n2", "sent [redacted] to n2"),
            ("novacron join ncj.a.b.c", "novacron join [redacted]"),
            ("\"Authorization: Bearer x\"\n", "\"Authorization: [redacted]\n"),
            ("get https://u:p@h.example/x?y", "get https://[redacted]@h.example/x?y"),
            ("qemu+tls://h1.example/system", "qemu+tls://h1.example/system"),
            (
                "a\n-----BEGIN EC PRIVATE KEY-----\nMIIB\n-----END EC PRIVATE KEY-----\nb\n",
                "a\n[redacted]\nb\n",
            ),
            ("token=abc password=x\n", "token= [redacted]\n"),
            ("{\"secret\":\"s\",\"password\":\"p\"}", "{\"secret\": [redacted]"),
            ("accessToken: x", "accessToken: [redacted]"),
            ("API_KEY=x", "API_KEY= [redacted]"),
            ("said \"two lines\\nnct.AAAA.b\"", "said \"two lines\\n[redacted]\""),
            ("https://u:p/w@h/x", "https://[redacted]@h/x"),
            ("-----BEGIN PRIVATE KEY-----\\nMIIB\\n-----END PRIVATE KEY-----\nb", "[redacted]\nb"),
            ("tokens-max = 7\n", "tokens-max = 7\n"),
            ("conduct.example is no secret", "conduct.example is no secret"),
        ] {
            assert_eq!(redacted(text), expected, "{text:?}");
        }
    }
}
