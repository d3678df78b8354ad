# Whole-guest stories: one ctest each, on the programs of this build and the guests of tests/make-guest.
set(TROUPE_GUEST ${CMAKE_BINARY_DIR}/guest CACHE PATH "Where the test guests are made; builds may share it")

add_test(NAME make_guest COMMAND ${CMAKE_SOURCE_DIR}/tests/make-guest ${TROUPE_GUEST})
set_tests_properties(make_guest PROPERTIES FIXTURES_SETUP guest TIMEOUT 900 LABELS stories)

# Memory that was freed lingers for the sanitizer's sake: little, as stories look at how much the daemon holds.
if(TROUPE_SANITIZE)
  set(sanitizer_options ";ASAN_OPTIONS=quarantine_size_mb=16")
endif()

file(GLOB stories CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*_story.py)
list(FILTER stories EXCLUDE REGEX "/troupe_story\\.py$") # what they share
foreach(story ${stories})
  get_filename_component(name ${story} NAME_WE)
  add_test(NAME ${name} COMMAND /usr/bin/python3 -B ${story}) # Debian's own: it has python3-libvirt
  set_tests_properties(${name} PROPERTIES
    ENVIRONMENT "TROUPE_BIN=${CMAKE_BINARY_DIR}/bin;TROUPE_GUEST=${TROUPE_GUEST};TROUPE_PATIENCE=180${sanitizer_options}"
    FIXTURES_REQUIRED guest SKIP_RETURN_CODE 77 TIMEOUT 1200 LABELS stories)
endforeach()
