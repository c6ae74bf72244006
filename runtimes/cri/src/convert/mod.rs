//! CRI's generated messages and our plain structs, each into the other.
//!
//! An enum value that this version does not know becomes the default, as protobuf readers do.

mod container;
mod image;
mod runtime;
mod sandbox;
mod security;
mod stats;
mod streaming;

/// The same message in the other vocabulary. (`From` is not ours to implement: both types are foreign here.)
pub(crate) trait Convert<To> {
    /// The message, moved field by field.
    fn convert(self) -> To;
}

/// A map of the other kind.
fn map<A, B>(from: A) -> B
where
    A: IntoIterator<Item = (String, String)>,
    B: FromIterator<(String, String)>,
{
    from.into_iter().collect()
}

/// Each element converted.
pub(crate) fn list<A: Convert<B>, B>(from: Vec<A>) -> Vec<B> {
    from.into_iter().map(Convert::convert).collect()
}

/// The enum value of a number.
fn known<E: TryFrom<i32> + Default>(number: i32) -> E {
    E::try_from(number).unwrap_or_default()
}

/// Both directions of an enum.
macro_rules! convert_enum {
    ($wire:ty => $plain:ty { $($from:ident => $to:ident),+ $(,)? }) => {
        impl Convert<$plain> for $wire {
            fn convert(self) -> $plain {
                match self { $(<$wire>::$from => <$plain>::$to),+ }
            }
        }

        impl Convert<$wire> for $plain {
            fn convert(self) -> $wire {
                match self { $(<$plain>::$to => <$wire>::$from),+ }
            }
        }
    };
}
use convert_enum;
