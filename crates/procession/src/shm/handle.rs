//! What the public handles to shared objects have in common, written once.
//!
//! A handle is a struct of its own for each kind of object, with a [`Shared`] in it. Its methods of
//! this kind cannot come from a trait: users would have to import that, and it would show them what
//! lies in the arena.
//!
//! [`Shared`]: crate::shm::Shared

/// Writes the parts that are named of a handle: `shared_handle!(Handle, "noun", [field], from; parts)`.
///
/// `field` is where the handle has its `Shared`, `from` makes a handle of one or fails.
///
/// | part      | what it writes                                                          |
/// |-----------|-------------------------------------------------------------------------|
/// | `note`    | the method of that name: the number that goes into a message            |
/// | `open`    | the method of that name: the handle that such a number stands for       |
/// | `serde`   | `Serialize` and `Deserialize`, as that number                           |
/// | `id`      | the method of that name: the same number, by itself                     |
/// | `is_same` | the method of that name                                                 |
macro_rules! shared_handle {
    ($handle:ident, $what:literal, $field:tt, $from:expr; $($part:ident),+) => {
        $($crate::shm::shared_handle!(@$part $handle, $what, $field, $from);)+
    };
    (@note $handle:ident, $what:literal, [$($field:tt)+], $from:expr) => {
        impl $handle {
            #[doc = concat!("The number that stands for the ", $what, " in the data which")]
            /// [`pack`](crate::shm::pack) is packing on this thread, for serializers that know nothing
            /// of serde.
            ///
            /// # Errors
            ///
            /// [`OutsideTree`](crate::shm::ArenaError::OutsideTree) outside of `pack`.
            pub fn note(&self) -> Result<u64, $crate::shm::ArenaError> {
                self.$($field)+.pack().map($crate::shm::Handle::raw)
            }
        }
    };
    (@open $handle:ident, $what:literal, [$($field:tt)+], $from:expr) => {
        impl $handle {
            #[doc = concat!("Opens the ", $what, " that `raw`, which [`note`](Self::note) gave, stands for.")]
            ///
            /// # Errors
            ///
            /// [`Stale`](crate::shm::ArenaError::Stale) when it is gone.
            pub fn open(raw: u64) -> Result<Self, $crate::shm::ArenaError> {
                $crate::shm::Shared::open($crate::shm::Handle::from_raw(raw)).and_then($from)
            }
        }
    };
    (@serde $handle:ident, $what:literal, [$($field:tt)+], $from:expr) => {
        impl serde::Serialize for $handle {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&self.$($field)+, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $handle {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let shared = <$crate::shm::Shared<_> as serde::Deserialize>::deserialize(from)?;
                let made: Result<Self, $crate::shm::ArenaError> = ($from)(shared);
                made.map_err(serde::de::Error::custom)
            }
        }
    };
    (@id $handle:ident, $what:literal, [$($field:tt)+], $from:expr) => {
        impl $handle {
            #[doc = concat!("The number by which every process of the tree knows the ", $what, ".")]
            /// It keeps nothing alive.
            pub fn id(&self) -> u64 {
                self.$($field)+.handle().raw()
            }
        }
    };
    (@is_same $handle:ident, $what:literal, [$($field:tt)+], $from:expr) => {
        impl $handle {
            #[doc = concat!("Whether two handles are of the same ", $what, ".")]
            pub fn is_same(&self, other: &Self) -> bool {
                self.$($field)+.handle() == other.$($field)+.handle()
            }
        }
    };
}

/// Writes what a handle to typed values, `typed_handle!(Handle<T>, field, markers)`, has from the
/// handle to bytes in its field: `Clone`, `Debug` and `Serialize`; and `Deserialize` too, if the type
/// of that handle follows, and nothing of its bytes has to be checked: `typed_handle!(Handle<T>,
/// field: Bytes, markers)`.
macro_rules! typed_handle {
    ($handle:ident<$($value:ident),+>, $field:ident: $bytes:ty, $($marker:ident),+) => {
        $crate::shm::typed_handle!($handle<$($value),+>, $field, $($marker),+);

        impl<'de, $($value),+> serde::Deserialize<'de> for $handle<$($value),+> {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let $field = <$bytes as serde::Deserialize>::deserialize(from)?;
                Ok(Self { $field, $($marker: std::marker::PhantomData),+ })
            }
        }
    };
    ($handle:ident<$($value:ident),+>, $field:ident, $($marker:ident),+) => {
        impl<$($value),+> Clone for $handle<$($value),+> {
            /// Another handle to the same values.
            fn clone(&self) -> Self {
                Self { $field: self.$field.clone(), $($marker: std::marker::PhantomData),+ }
            }
        }

        impl<$($value),+> std::fmt::Debug for $handle<$($value),+> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($handle)).field(&self.$field).finish()
            }
        }

        impl<$($value),+> serde::Serialize for $handle<$($value),+> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&self.$field, serializer)
            }
        }
    };
}

pub(crate) use shared_handle;
pub(crate) use typed_handle;
