#pragma once

// What the elements of a definition are called, what they hold and in which order libvirt writes them: a function an
// element, which the reader, the writer and the documentation all run. To add an attribute, add its field in domain.hpp
// and its line here.
//
// A visitor offers
//   attr, text         an attribute, the content; a third argument says how a number looks (domain_values.hpp)
//   leaf               an element with nothing but content
//   child, marked      an element without a struct of its own; `marked` counts even when empty
//   flag               an empty element that is there or not
//   part, parts        an element, or several, with a struct of their own; of `filled_parts` the empty ones are not
//                      written
//   values             several elements of one word each
//   raw                elements kept as they are
//   amount             content that is an amount in some unit
//   live               what only a running guest has
//   opened             from here on a start and an end tag, even if nothing stands between them
//   generated, secret  what is not shown to everybody
// and `ref<T>`, what it takes a struct by, so that a writer cannot change it; `reads` is true of the reader.

#include "xml/describe_common.hpp"
#include "xml/describe_devices.hpp"
#include "xml/describe_machine.hpp"
#include "xml/describe_storage.hpp"
