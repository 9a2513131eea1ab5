//! What libvirt's daemons say to each other when a guest moves, and what can befall it.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context, Error, Result, bail};

/// What the source's daemon asks the target's to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Procedure {
    /// Make ready for the guest: its QEMU is started there.
    Prepare,
    /// The guest has been copied: take it over.
    Finish,
}

/// Whether it is asked or answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// From the source to the target.
    Call,
    /// From the target to the source.
    Reply,
}

/// A message that a strike can be aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// What is asked.
    pub procedure: Procedure,
    /// Whether it is the question.
    pub side: Side,
}

/// What befalls a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// The connection is closed in its place.
    Drop,
    /// It and what follows comes so much later.
    Hold(Duration),
    /// Neither it nor anything after it comes, in both directions, and the connection stays open.
    Hole,
}

/// A blow at a message, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike {
    /// What befalls it.
    pub blow: Blow,
    /// Which one.
    pub message: Message,
}

/// The bytes of a message that say what it is: its length, four bytes, which counts itself; program,
/// version, procedure, type, serial and status.
pub const HEADER_BYTES: usize = 28;

/// The longest message that libvirt sends, bytes.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

impl Message {
    /// Which of them a message is, by its header, if it is one.
    #[must_use]
    pub fn of(header: &[u8; HEADER_BYTES]) -> Option<Message> {
        const REMOTE: u32 = 0x2000_8086;
        let word = |at: usize| {
            let bytes = header[4 * at..4 * at + 4].try_into();
            u32::from_be_bytes(bytes.expect("the words lie within the header"))
        };
        if word(1) != REMOTE {
            return None;
        }
        // REMOTE_PROC_DOMAIN_MIGRATE_PREPARE3_PARAMS and …_FINISH3_PARAMS of remote_protocol.x.
        let procedure = match word(3) {
            303 => Procedure::Prepare,
            306 => Procedure::Finish,
            _ => return None,
        };
        let side = match word(4) {
            0 => Side::Call,
            1 => Side::Reply,
            _ => return None,
        };
        Some(Message { procedure, side })
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.blow {
            Blow::Drop => write!(f, "drop")?,
            Blow::Hold(time) => write!(f, "hold-{}ms", time.as_millis())?,
            Blow::Hole => write!(f, "hole")?,
        }
        let procedure = match self.message.procedure {
            Procedure::Prepare => "prepare",
            Procedure::Finish => "finish",
        };
        let side = match self.message.side {
            Side::Call => "call",
            Side::Reply => "reply",
        };
        write!(f, " {procedure} {side}")
    }
}

impl FromStr for Strike {
    type Err = Error;

    fn from_str(text: &str) -> Result<Strike> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [blow, procedure, side] = words[..] else { bail!("{text:?} is no strike") };
        let blow = match blow {
            "drop" => Blow::Drop,
            "hole" => Blow::Hole,
            held => {
                let time = held.strip_prefix("hold-").and_then(|rest| rest.strip_suffix("ms"));
                let time = time.with_context(|| format!("{held:?} is no blow"))?;
                Blow::Hold(Duration::from_millis(time.parse()?))
            }
        };
        let procedure = match procedure {
            "prepare" => Procedure::Prepare,
            "finish" => Procedure::Finish,
            other => bail!("{other:?} is no procedure"),
        };
        let side = match side {
            "call" => Side::Call,
            "reply" => Side::Reply,
            other => bail!("{other:?} is neither call nor reply"),
        };
        Ok(Strike { blow, message: Message { procedure, side } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_are_what_they_say() {
        for text in ["drop prepare call", "hold-4000ms finish reply", "hole finish call"] {
            assert_eq!(text.parse::<Strike>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "drop",
            "drop finish",
            "burn finish call",
            "hold-x finish call",
            "drop perform call",
            "drop finish word",
            "drop finish call now",
        ] {
            assert!(text.parse::<Strike>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn messages_are_known_by_their_headers() {
        let header = |program: u32, procedure: u32, kind: u32| {
            let words = [28, program, 1, procedure, kind, 7, 0];
            let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
            Message::of(&bytes.try_into().unwrap())
        };
        let message = |procedure, side| Some(Message { procedure, side });
        for (program, procedure, kind, wanted) in [
            (0x2000_8086, 303, 0, message(Procedure::Prepare, Side::Call)),
            (0x2000_8086, 303, 1, message(Procedure::Prepare, Side::Reply)),
            (0x2000_8086, 306, 0, message(Procedure::Finish, Side::Call)),
            (0x2000_8086, 306, 1, message(Procedure::Finish, Side::Reply)),
            (0x2000_8086, 306, 2, None),
            (0x2000_8086, 305, 0, None),
            // Whether the other side is there.
            (0x6b65_6570, 306, 0, None),
        ] {
            assert_eq!(header(program, procedure, kind), wanted, "{program:x} {procedure} {kind}");
        }
    }
}
