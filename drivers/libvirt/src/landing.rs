//! Where a guest lands: the paths that differ from host to host. Everything else of a body that moves
//! is as the sending host's libvirt has it, down to the machine's version and each device's address.

use std::path::{Path, PathBuf};

use drivers::{DriverError, ErrorKind, Order};
use quick_xml::{
    Reader, Writer,
    events::{BytesStart, BytesText, Event},
};
use serde::{Deserialize, Serialize};

use crate::xml::{self, Parts};

/// The paths of one body on one host, and the fence under which it was made there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Places {
    fence: u64,
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    /// In the order of the disks' names, the seed last.
    disks: Vec<PathBuf>,
    console_socket: PathBuf,
    console_log: PathBuf,
}

impl Places {
    pub(crate) fn of(order: &Order, parts: &Parts) -> Places {
        Places {
            fence: order.fence.as_u64(),
            kernel: parts.kernel.clone(),
            initrd: parts.initrd.clone(),
            disks: parts.disks.iter().chain(&parts.seed).cloned().collect(),
            console_socket: xml::console_socket(&parts.directory),
            console_log: xml::console_log(&parts.directory),
        }
    }

    pub(crate) fn write(&self) -> Result<String, DriverError> {
        serde_json::to_string(self).map_err(|error| protocol(&error))
    }

    pub(crate) fn read(text: &str) -> Result<Places, DriverError> {
        serde_json::from_str(text).map_err(|error| protocol(&error))
    }

    /// A live definition as it is to be at these places.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is another crate's")]
    pub(crate) fn apply(&self, live: &str) -> Result<String, DriverError> {
        let mut reader = Reader::from_str(live);
        let mut writer = Writer::new(Vec::new());
        let mut path: Vec<String> = Vec::new();
        let mut disk = 0;
        loop {
            let event = match reader.read_event().map_err(|error| protocol(&error))? {
                Event::Eof => break,
                // The chain of a disk's files is found anew where it lands.
                Event::Start(element) if is_chain(&path, &element) => {
                    reader.read_to_end(element.name()).map_err(|error| protocol(&error))?;
                    continue;
                }
                Event::Empty(element) if is_chain(&path, &element) => continue,
                Event::Start(element) => {
                    path.push(name(&element));
                    if is(&path, &["domain", "devices", "disk"]) {
                        disk += 1;
                    }
                    Event::Start(self.placed(&path, element, disk)?)
                }
                Event::Empty(element) => {
                    path.push(name(&element));
                    let placed = self.placed(&path, element, disk)?;
                    path.pop();
                    Event::Empty(placed)
                }
                Event::End(end) => {
                    path.pop();
                    Event::End(end)
                }
                Event::Text(text) => match self.text(&path) {
                    Some(place) => Event::Text(BytesText::new(place).into_owned()),
                    None => Event::Text(text),
                },
                other => other,
            };
            writer.write_event(event).map_err(|error| protocol(&error))?;
        }
        String::from_utf8(writer.into_inner()).map_err(|error| protocol(&error))
    }

    /// An element with its path, if it has one that differs.
    fn placed<'a>(
        &self,
        path: &[String],
        element: BytesStart<'a>,
        disk: usize,
    ) -> Result<BytesStart<'a>, DriverError> {
        let (key, value) = if is(path, &["domain", "devices", "disk", "source"]) {
            let place = self.disks.get(disk - 1);
            let place = place.ok_or_else(|| protocol(&"the guest has more disks than places"))?;
            ("file", text_of(place)?.to_owned())
        } else if is(path, &["domain", "devices", "serial", "source"])
            || is(path, &["domain", "devices", "console", "source"])
        {
            ("path", text_of(&self.console_socket)?.to_owned())
        } else if is(path, &["domain", "devices", "serial", "log"])
            || is(path, &["domain", "devices", "console", "log"])
        {
            ("file", text_of(&self.console_log)?.to_owned())
        } else if is(path, &["domain", "metadata", "novacron:body"]) {
            ("fence", self.fence.to_string())
        } else {
            return Ok(element);
        };
        let mut placed = BytesStart::new(name(&element));
        for attribute in element.attributes() {
            let attribute = attribute.map_err(|error| protocol(&error))?;
            if attribute.key.as_ref() == key.as_bytes() {
                placed.push_attribute((key, value.as_str()));
            } else {
                placed.push_attribute(attribute);
            }
        }
        Ok(placed)
    }

    /// What the text at a path becomes, if it is a place.
    fn text(&self, path: &[String]) -> Option<&str> {
        let place = if is(path, &["domain", "os", "kernel"]) {
            &self.kernel
        } else if is(path, &["domain", "os", "initrd"]) {
            &self.initrd
        } else {
            return None;
        };
        place.as_ref()?.to_str()
    }
}

fn is(path: &[String], wanted: &[&str]) -> bool {
    path.iter().map(String::as_str).eq(wanted.iter().copied())
}

fn name(element: &BytesStart) -> String {
    String::from_utf8_lossy(element.name().as_ref()).into_owned()
}

fn is_chain(path: &[String], element: &BytesStart) -> bool {
    is(path, &["domain", "devices", "disk"]) && element.name().as_ref() == b"backingStore"
}

fn text_of(path: &Path) -> Result<&str, DriverError> {
    path.to_str().ok_or_else(|| protocol(&"a path is no text"))
}

fn protocol(error: &dyn std::fmt::Display) -> DriverError {
    DriverError::new(ErrorKind::Protocol, format!("where the guest lands: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_places_change() {
        let places = Places {
            fence: 9,
            kernel: Some("/there/kernel".into()),
            initrd: None,
            disks: vec!["/there/a".into(), "/there/b".into()],
            console_socket: "/there/sock".into(),
            console_log: "/there/log".into(),
        };
        let live = "<domain type='qemu' id='3'>\
            <metadata><novacron:body vm='v' fence='1'/></metadata>\
            <os><type machine='pc-q35-7.2'>hvm</type><kernel>/here/kernel</kernel>\
            <cmdline>a &amp; b machine=\"q35\"</cmdline></os><devices>\
            <disk><source file='/here/a' index='1'/><backingStore><source file='/here/base'/>\
            <backingStore/></backingStore><target dev='vda'/></disk>\
            <disk><source file='/here/b'/><backingStore/><target dev='vdb'/></disk>\
            <serial><source mode='bind' path='/here/sock'/><log file='/here/log' append='on'/></serial>\
            <console><source mode='bind' path='/here/sock'/></console></devices></domain>";
        let there = "<domain type='qemu' id='3'>\
            <metadata><novacron:body vm=\"v\" fence=\"9\"/></metadata>\
            <os><type machine='pc-q35-7.2'>hvm</type><kernel>/there/kernel</kernel>\
            <cmdline>a &amp; b machine=\"q35\"</cmdline></os><devices>\
            <disk><source file=\"/there/a\" index=\"1\"/><target dev='vda'/></disk>\
            <disk><source file=\"/there/b\"/><target dev='vdb'/></disk>\
            <serial><source mode=\"bind\" path=\"/there/sock\"/>\
            <log file=\"/there/log\" append=\"on\"/></serial>\
            <console><source mode=\"bind\" path=\"/there/sock\"/></console></devices></domain>";
        assert_eq!(places.apply(live).unwrap(), there);
        assert_eq!(Places::read(&places.write().unwrap()).unwrap(), places);
        let fewer = Places { disks: vec!["/there/a".into()], ..places };
        assert_eq!(fewer.apply(live).unwrap_err().kind, ErrorKind::Protocol);
    }
}
