//! The attribute `procession::shared`, which gives a type methods for the clients of a manager.
//!
//! | file        | what is in it                                             |
//! |-------------|------------------------------------------------------------|
//! | `methods`   | which methods there are, and which of them cannot be shared |
//! | `options`   | what `#[shared(…)]` says before a method                    |
//! | `expansion` | the code that is made of them                               |
//!
//! It is used through the crate `procession`, which has its documentation and its tests.

mod expansion;
mod methods;
mod options;

use proc_macro::TokenStream;
use syn::{ItemImpl, parse_macro_input};

/// See `procession::shared`.
#[proc_macro_attribute]
pub fn shared(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let block = parse_macro_input!(item as ItemImpl);
    expansion::expand(attribute.into(), block).unwrap_or_else(syn::Error::into_compile_error).into()
}
