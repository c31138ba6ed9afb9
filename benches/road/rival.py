# The usual home-made script: watchdog hears of files, jinja2 writes the mail, smtplib sends it over one
# connection. Nothing is kept.
import pathlib, queue, smtplib, sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from jinja2 import Template
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
arrived = queue.Queue()
text = Template("{{ name }} has come, {{ size }} bytes, in {{ folder }}.\n")
html = Template("<html><body><table><tr><td>Name</td><td>{{ name }}</td></tr><tr><td>Size</td><td>{{ size }}"
                "</td></tr><tr><td>Folder</td><td>{{ folder }}</td></tr></table></body></html>\n", autoescape=True)


class Handler(FileSystemEventHandler):
    def on_created(self, event):
        arrived.put(pathlib.Path(event.src_path))


observer = Observer()
observer.schedule(Handler(), str(folder / "drop"))
observer.start()
server = smtplib.SMTP("127.0.0.1", port)
(folder / "ready").touch()
while True:
    path = arrived.get()
    facts = {"name": path.name, "size": path.stat().st_size, "folder": str(path.parent)}
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "robot@example.org", "ap@example.org", path.name
    mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain="example.org")
    mail.set_content(text.render(facts))
    mail.add_alternative(html.render(facts), subtype="html")
    server.send_message(mail)
