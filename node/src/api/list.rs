//! Lists by page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::id::Digest;
use proto::{convert::invalid, v1};
use serde::Serialize;
use tonic::Status;

use super::{
    errors,
    filter::{Filter, Order},
};

const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 1_000;

/// A row not yet made: its key, by which the list is ordered and continued, and how to make it.
pub(super) struct Lazy<'a, T> {
    pub(super) key: String,
    pub(super) row: Box<dyn FnOnce() -> T + 'a>,
}

impl<'a, T> Lazy<'a, T> {
    pub(super) fn new(key: impl ToString, row: impl FnOnce() -> T + 'a) -> Lazy<'a, T> {
        Lazy { key: key.to_string(), row: Box::new(row) }
    }
}

/// One page of rows, which come in the order of their keys; and the token of the next. `rows` is asked for those
/// after a key; it may give earlier ones too.
///
/// `scope` is what else the list depends on: a token is good for the same list only. `message` is
/// the rows' name in the API.
pub(super) fn page_after<'a, T: Serialize, R: Iterator<Item = Lazy<'a, T>>>(
    page: Option<v1::Page>,
    message: &str,
    scope: &str,
    rows: impl FnOnce(Option<&str>) -> R,
) -> Result<(Vec<T>, String), Status> {
    let page = page.unwrap_or_default();
    let filter = Filter::parse(&page.filter, message).map_err(errors::rejected)?;
    let order = Order::parse(&page.order_by, message).map_err(errors::rejected)?;
    let list = Digest::of(&[
        message.as_bytes(),
        scope.as_bytes(),
        page.filter.as_bytes(),
        page.order_by.as_bytes(),
    ]);
    let after = read_token(&page.page_token, list).map_err(errors::rejected)?;
    let size = match page.page_size {
        0 => PAGE_DEFAULT,
        size => size.min(PAGE_MAX),
    };
    let size = usize::try_from(size).unwrap_or(1);
    let mut found = Vec::new();
    match order {
        // In the order of the keys only as many rows are made as are needed.
        None => {
            let rest = rows(after.as_deref())
                .skip_while(|lazy| after.as_ref().is_some_and(|at| lazy.key <= *at));
            for lazy in rest {
                let row = (lazy.row)();
                if filter.passes(&row) {
                    found.push((lazy.key, row));
                }
                if found.len() > size {
                    break;
                }
            }
        }
        Some(order) => {
            let is_beyond = |key: &String| match &after {
                Some(after) if order.descending => key < after,
                Some(after) => key > after,
                None => true,
            };
            let sort = |found: &mut Vec<(String, T)>| {
                found.sort_by(|a, b| a.0.cmp(&b.0));
                if order.descending {
                    found.reverse();
                }
            };
            for lazy in rows(None) {
                let row = (lazy.row)();
                if !filter.passes(&row) {
                    continue;
                }
                let key = format!("{}\0{}", order.key(&row), lazy.key);
                if is_beyond(&key) {
                    found.push((key, row));
                }
                // What cannot come on this page is not kept: there may be very many rows.
                if found.len() > 4 * (size + 1) {
                    sort(&mut found);
                    found.truncate(size + 1);
                }
            }
            sort(&mut found);
        }
    }
    let more = found.len() > size;
    found.truncate(size);
    let token = match found.last() {
        Some((key, _)) if more => write_token(key, list),
        Some(_) | None => String::new(),
    };
    Ok((found.into_iter().map(|(_, row)| row).collect(), token))
}

/// The same of rows that can only be given from the first one on.
pub(super) fn page<'a, T: Serialize>(
    page: Option<v1::Page>,
    message: &str,
    scope: &str,
    rows: impl Iterator<Item = Lazy<'a, T>>,
) -> Result<(Vec<T>, String), Status> {
    page_after(page, message, scope, |_| rows)
}

fn write_token(after: &str, list: Digest) -> String {
    let check = Digest::of(&[list.as_bytes(), after.as_bytes()]);
    URL_SAFE_NO_PAD.encode([&check.as_bytes()[..8], after.as_bytes()].concat())
}

fn read_token(token: &str, list: Digest) -> Result<Option<String>, domain::rejected::Rejected> {
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        let message = "belongs to another list; send it with the filter, order and project it \
                       came with, or begin without one";
        invalid("page.page_token", message)
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let (check, after) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
    if Digest::of(&[list.as_bytes(), after]).as_bytes()[..8] != check[..] {
        return Err(wrong());
    }
    String::from_utf8(after.to_vec()).map(Some).map_err(|_| wrong())
}
