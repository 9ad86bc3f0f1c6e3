# The system's locale, for login shells that have none yet.
if [ -z "${LANG-}" ] && [ -r /etc/locale.conf ]; then
  . /etc/locale.conf
  export LANG
fi
