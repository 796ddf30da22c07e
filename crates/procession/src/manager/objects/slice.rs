//! Places in a list, as Python gives them.

use crate::manager::object::Raised;
use crate::manager::objects::repr::type_name;
use crate::pickle::Value;

/// What is between the brackets.
pub(super) enum Place {
    One(i64),
    Slice(Slice),
}

/// `begin:end:step`.
pub(super) struct Slice {
    begin: Option<i64>,
    end: Option<i64>,
    step: i64,
}

impl Place {
    pub(super) fn of(value: &Value) -> Result<Self, Raised> {
        if let Some(number) = integer(value) {
            return Ok(Self::One(number));
        }
        if let Value::Object(object) = value
            && object.class().is_some_and(|class| class.is("builtins", "slice"))
            && let [begin, end, step] = object.arguments.as_slice()
        {
            let step = optional(step)?.unwrap_or(1);
            if step == 0 {
                return Err(Raised::value_error("slice step cannot be zero"));
            }
            return Ok(Self::Slice(Slice { begin: optional(begin)?, end: optional(end)?, step }));
        }
        let text = "list indices must be integers or slices, not ";
        Err(Raised::type_error(format!("{text}{}", type_name(value))))
    }
}

/// The integer that a value is.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Bool(value) => Some((*value).into()),
        _ => None,
    }
}

fn optional(value: &Value) -> Result<Option<i64>, Raised> {
    if *value == Value::None {
        return Ok(None);
    }
    let text = "slice indices must be integers or None";
    integer(value).map(Some).ok_or_else(|| Raised::type_error(text))
}

/// The index of an item, counted from the end if negative.
pub(super) fn index(place: i64, len: usize) -> Option<usize> {
    let place = if place < 0 { place.checked_add_unsigned(len as u64)? } else { place };
    usize::try_from(place).ok().filter(|place| *place < len)
}

/// Where an item is put in or looked for: somewhere from the beginning to behind the end.
pub(super) fn bounded(place: i64, len: usize) -> usize {
    let place = if place < 0 { place.saturating_add_unsigned(len as u64) } else { place };
    usize::try_from(place.max(0)).unwrap_or(usize::MAX).min(len)
}

impl Slice {
    /// Whether it is a part of the list without gaps, in order.
    pub(super) fn is_simple(&self) -> bool {
        self.step == 1
    }

    /// The first index, and the one behind the last, of a simple slice.
    pub(super) fn range(&self, len: usize) -> std::ops::Range<usize> {
        let begin = bounded(self.begin.unwrap_or(0), len);
        let end = self.end.map_or(len, |end| bounded(end, len));
        begin..end.max(begin)
    }

    /// All indices, in the order of the slice.
    pub(super) fn indices(&self, len: usize) -> Vec<usize> {
        let last = i64::try_from(len).unwrap_or(i64::MAX);
        let (low, high) = if self.step > 0 { (0, last) } else { (-1, last - 1) };
        let bound = |place: i64| {
            let place = if place < 0 { place.saturating_add(last) } else { place };
            place.clamp(low, high)
        };
        let (first, end) = if self.step > 0 { (low, high) } else { (high, low) };
        let (mut at, end) = (self.begin.map_or(first, bound), self.end.map_or(end, bound));
        let mut indices = Vec::new();
        while (self.step > 0 && at < end) || (self.step < 0 && at > end) {
            indices.extend(usize::try_from(at));
            at = at.saturating_add(self.step);
        }
        indices
    }
}
